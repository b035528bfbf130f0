//! Milvus as one process.

use std::{
    env,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use super::{at_the_end, free_port};

/// `milvus-lite`, started on a free port of the loopback.
pub struct Server {
    folder: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
    /// Whose input ends with this process.
    watching: Option<Child>,
}

impl Server {
    pub fn start() -> Option<Self> {
        if env::var_os("RAG_MILVUS_LITE").is_none() {
            eprintln!("skipped: RAG_MILVUS_LITE names no program milvus-lite");
            return None;
        }
        let mut server = Self {
            folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            port: free_port(),
            process: None,
            watching: None,
        };
        server.up();
        Some(server)
    }

    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        let server = SHARED.get_or_init(Self::start).as_ref();
        if server.is_none() {
            eprintln!("skipped: no Milvus");
        }
        server
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn up(&mut self) {
        let mut command = Command::new(env::var_os("RAG_MILVUS_LITE").unwrap());
        command
            .args([
                "server",
                "--host",
                "127.0.0.1",
                "--port",
                &self.port.to_string(),
            ])
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let pid = process.id().to_string();
        self.watching = Some(at_the_end("kill -9 \"$1\"", &[pid.as_ref()]));
        self.process = Some(process);
    }

    pub fn down(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.down();
    }
}
