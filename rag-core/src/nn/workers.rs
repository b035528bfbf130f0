//! Computations of many small steps, which the CPU's cores share.

use burn::tensor::Device;

/// Runs a computation of a device on one of the threads that share the CPU's work, so that none of its many small
/// steps waits for them to wake up. The others look for work as long as it lasts.
///
/// A program that computes many times also calls [`keep_freed_pages`](crate::cpu::keep_freed_pages), once.
pub fn among_workers<R: Send>(device: &Device, compute: impl FnOnce() -> R + Send) -> R {
    #[cfg(feature = "flex")]
    if rag_cpu::is_cpu(device) && !device.is_autodiff() {
        return rag_cpu::among_workers(compute);
    }
    let _ = device;
    compute()
}
