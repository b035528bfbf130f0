//! Numbers of the reference implementation, case by case: every folder of `tests/golden/`, and every
//! folder of `$RAG_GOLDEN_DIR`. `$RAG_DEVICE` chooses the device (`cpu`, `wgpu`, `cuda:0`).
//!
//! A folder is a whole RAG (`rag.rs`) or a decoder-only generator, in `generator/` (`causal.rs`).

#![allow(clippy::unwrap_used)]

mod arrays;
mod causal;
mod gradients;
mod rag;

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn_rag::burn::tensor::{Device, Tensor};

use arrays::{Case, Cases};

/// A model and the numbers that belong to it.
trait Golden {
    /// What differs from what the case expects.
    fn check(&self, case: &Case) -> Result<(), String>;
}

#[test]
fn golden_cases() {
    let Some(device) = device() else { return };
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let others = std::env::var_os("RAG_GOLDEN_DIR").map(PathBuf::from);
    let mut passed = 0;
    let mut failures = Vec::new();
    for folder in [own]
        .into_iter()
        .chain(others)
        .flat_map(|parent| folders(&parent))
    {
        let golden = open(&folder, &device);
        let cases = fs::read_to_string(folder.join("cases.json")).unwrap();
        let cases: Cases = serde_json::from_str(&cases).unwrap();
        for case in cases.cases {
            match golden.check(&case) {
                Ok(()) => passed += 1,
                Err(difference) => {
                    failures.push(format!("{} {}: {difference}", folder.display(), case.id));
                }
            }
        }
    }
    println!(
        "{passed} golden cases passed on {device:?}, {} failed",
        failures.len()
    );
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    assert!(passed > 0, "there are no golden cases");
}

/// The device asked for; `None`, with a line that says so, where WGPU has no adapter.
fn device() -> Option<Device> {
    let name = std::env::var("RAG_DEVICE").unwrap_or_else(|_| "cpu".into());
    let device = burn_rag::core::device(&name).expect("RAG_DEVICE");
    let reachable =
        std::panic::catch_unwind(|| Tensor::<1>::ones([1], &device).into_scalar::<f32>());
    if reachable.is_err() && name.starts_with("wgpu") {
        println!("skipped: there is no adapter for {name}");
        return None;
    }
    Some(device)
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<_> = fs::read_dir(parent)
        .unwrap_or_else(|error| panic!("{}: {error}", parent.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("cases.json").is_file())
        .collect();
    folders.sort();
    folders
}

fn open(folder: &Path, device: &Device) -> Box<dyn Golden> {
    if folder.join("config.json").is_file() {
        return Box::new(rag::Rag::open(folder, device));
    }
    assert!(
        folder.join("generator/config.json").is_file(),
        "{} has neither config.json, of a RAG, nor generator/config.json, of a decoder-only generator",
        folder.display()
    );
    Box::new(causal::Causal::open(folder, device))
}
