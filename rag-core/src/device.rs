use burn::tensor::Device;

use crate::error::{Error, Result};

/// The device that a string names: `cpu`, `wgpu`, `wgpu:1` (the second discrete GPU) or `cuda:0`.
///
/// Which of them exist depends on the features that the program was built with. Trainers take it as it is, and make
/// the device with gradients ([`Device::autodiff`]) themselves.
///
/// # Errors
/// [`Error::Device`] names the strings that this build understands, and [`Error::Config`] the values that the environment
/// variable `RAG_CPU` can have on this processor, where it has another.
///
/// ```
/// # #[cfg(feature = "flex")]
/// let device = rag_core::device("cpu")?;
/// assert!(rag_core::device("gpu").is_err());
/// # Ok::<(), rag_core::Error>(())
/// ```
pub fn device(name: &str) -> Result<Device> {
    let unknown = || Error::Device {
        found: name.to_owned(),
        expected: supported(),
    };
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => (kind, Some(index.parse::<usize>().map_err(|_| unknown())?)),
        None => (name, None),
    };
    match (kind, index) {
        #[cfg(feature = "flex")]
        ("cpu", None) => cpu(),
        #[cfg(feature = "wgpu")]
        ("wgpu", None) => Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)),
        #[cfg(feature = "wgpu")]
        ("wgpu", Some(index)) => Ok(Device::wgpu(burn::tensor::DeviceKind::DiscreteGpu(index))),
        #[cfg(feature = "cuda")]
        ("cuda", index) => Ok(Device::cuda(index.unwrap_or(0))),
        _ => Err(unknown()),
    }
}

/// The CPU, where `RAG_CPU` does not ask for what it does not have.
#[cfg(feature = "flex")]
fn cpu() -> Result<Device> {
    let allowed = rag_cpu::Processor::allowed();
    allowed.map_err(|unknown| Error::Config {
        field: "RAG_CPU".into(),
        found: unknown.found,
        expected: format!("one of {} on this processor", unknown.expected),
    })?;
    Ok(Device::flex())
}

fn supported() -> String {
    let mut names = Vec::new();
    if cfg!(feature = "flex") {
        names.push("cpu");
    }
    if cfg!(feature = "wgpu") {
        names.push("wgpu, wgpu:N");
    }
    if cfg!(feature = "cuda") {
        names.push("cuda, cuda:N");
    }
    format!(
        "{} (a build with the features flex, wgpu or cuda has more)",
        names.join(", ")
    )
}
