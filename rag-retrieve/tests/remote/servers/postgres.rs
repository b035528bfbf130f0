//! PostgreSQL, started on a free port of the loopback.

use std::{
    env, fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use super::{at_the_end, free_port};

/// Someone without rights, whom `initdb` takes in the place of root.
const NOBODY: u32 = 65534;

pub struct Server {
    programs: PathBuf,
    folder: tempfile::TempDir,
    pub port: u16,
    /// Whose input ends with this process.
    _watching: Option<Child>,
}

impl Server {
    /// A new server, or `None`, said aloud, where there is no PostgreSQL.
    pub fn start() -> Option<Self> {
        let Some(programs) = env::var_os("RAG_POSTGRES_BIN") else {
            eprintln!("skipped: RAG_POSTGRES_BIN names no folder of PostgreSQL's programs");
            return None;
        };
        // Sockets have short paths.
        let folder = tempfile::Builder::new()
            .prefix("pg")
            .tempdir_in("/tmp")
            .unwrap();
        let mut server = Self {
            programs: programs.into(),
            folder,
            port: free_port(),
            _watching: None,
        };
        if is_root() {
            chown(server.folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let data = server.data();
        let options = [
            "-U",
            "rag",
            "--auth=trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
            "-D",
        ];
        run(server.program("initdb").args(options).arg(&data));
        let settings = format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\n",
            server.port,
            server.folder.path().display()
        );
        let path = data.join("postgresql.conf");
        fs::write(&path, fs::read_to_string(&path).unwrap() + &settings).unwrap();
        server.up();
        // At once, as a crash would.
        let stop = r#"kill -QUIT "$(head -n 1 "$1/postmaster.pid")"; sleep 1; rm -rf "$2""#;
        let folder = server.folder.path().as_os_str();
        server._watching = Some(at_the_end(stop, &[data.as_ref(), folder]));
        Some(server)
    }

    /// The one that tests share which stop nothing.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        let server = SHARED.get_or_init(Self::start).as_ref();
        if server.is_none() {
            eprintln!("skipped: no PostgreSQL");
        }
        server
    }

    pub fn address(&self) -> String {
        format!("postgresql://rag@127.0.0.1:{}/postgres", self.port)
    }

    pub fn up(&self) {
        let log = self.folder.path().join("log");
        run(self
            .program("pg_ctl")
            .arg("start")
            .arg("-w")
            .arg("-D")
            .arg(self.data())
            .arg("-l")
            .arg(log));
    }

    /// As a crash stops it.
    pub fn down(&self) {
        run(self
            .program("pg_ctl")
            .args(["stop", "-m", "immediate", "-D"])
            .arg(self.data()));
    }

    /// The result of a query, as text.
    pub fn sql(&self, query: &str) -> String {
        let address = self.address();
        let options = ["-X", "-t", "-A", "-c", query, &address];
        let output = self
            .program("psql")
            .args(options)
            .stdout(Stdio::piped())
            .output()
            .unwrap();
        assert!(output.status.success(), "{query}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.stdout(Stdio::null()).current_dir(Path::new("/"));
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut stop = self.program("pg_ctl");
        let _ = stop
            .args(["stop", "-m", "immediate", "-D"])
            .arg(self.data())
            .stderr(Stdio::null())
            .status();
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}");
}
