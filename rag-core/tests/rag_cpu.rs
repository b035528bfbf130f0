//! The values that the environment variable `RAG_CPU` may have. It is read once a process, so that each case is a process
//! of its own.

#![cfg(feature = "flex")]
#![allow(clippy::unwrap_used)]

use std::{env, process::Command};

use rag_core::{
    Error,
    cpu::{Processor, UnknownProcessor},
    device,
};

/// Runs a test of this file with the variable set.
fn passes(test: &str, value: &str) -> bool {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored"]);
    let done = command.env("RAG_CPU", value).output().unwrap();
    let passed = String::from_utf8_lossy(&done.stdout).contains("1 passed");
    passed && done.status.success()
}

#[test]
fn the_variable_caps_what_is_used_or_is_an_error() {
    for processor in Processor::available() {
        assert!(passes("the_cap_is_used", &processor.to_string()));
    }
    for unknown in ["sse9", "", "AVX2"] {
        assert!(passes("the_cap_is_an_error", unknown));
    }
}

#[test]
#[ignore = "run by another test, with RAG_CPU set"]
fn the_cap_is_used() {
    device("cpu").unwrap();
    let expected = env::var("RAG_CPU").unwrap();
    assert_eq!(Processor::current().to_string(), expected);
}

#[test]
#[ignore = "run by another test, with RAG_CPU set"]
fn the_cap_is_an_error() {
    let expected = env::var("RAG_CPU").unwrap();
    let UnknownProcessor { found, .. } = Processor::allowed().unwrap_err();
    assert_eq!(found, expected);
    match device("cpu").unwrap_err() {
        Error::Config { field, found, .. } => {
            assert_eq!([field, found], ["RAG_CPU".into(), expected])
        }
        other => panic!("{other}"),
    }
}
