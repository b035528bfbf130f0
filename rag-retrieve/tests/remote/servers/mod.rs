//! Servers that tests start, each on a free port of the loopback.

#[cfg(feature = "milvus")]
pub mod milvus;
#[cfg(feature = "postgres")]
pub mod postgres;

use std::{
    ffi::OsStr,
    net::TcpListener,
    process::{Child, Command, Stdio},
};

/// A shell that runs `script` with `arguments` when this process ends, however it ends: servers that tests
/// share are never dropped.
fn at_the_end(script: &str, arguments: &[&OsStr]) -> Child {
    Command::new("sh")
        .args(["-c", &format!("read _; {script}"), "sh"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A port of the loopback that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}
