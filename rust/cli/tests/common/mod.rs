//! Starts the real program, and ends it again.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest time for anything here; a test that needs longer hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// The program, with a fixed environment.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flagcx-p2p"));
    if std::env::var_os("FLAGCX_P2P_FABRIC").is_none() {
        command.env("FLAGCX_P2P_FABRIC", "software");
    }
    for variable in ["RUST_LOG", "FLAGCX_DEBUG", "FLAGCX_DEBUG_SUBSYS", "FLAGCX_DEBUG_FILE"] {
        command.env_remove(variable);
    }
    command
}

/// A `serve` process. Killed when dropped.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) address: String,
    /// Its directory.
    pub(crate) path: PathBuf,
    /// Removed at the end, where it is its own.
    temp: Option<tempfile::TempDir>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(environment: &[(&str, &str)]) -> Self {
        Self::spawn(environment, &[])
    }

    pub(crate) fn start_with_arguments(arguments: &[&str]) -> Self {
        Self::spawn(&[], arguments)
    }

    pub(crate) fn spawn(environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut server = Self::spawn_in(temp.path().to_owned(), environment, arguments);
        server.temp = Some(temp);
        server
    }

    /// Another server of its directory.
    pub(crate) fn next(&self) -> Self {
        Self::spawn_in(self.path.clone(), &[], &[])
    }

    fn spawn_in(path: PathBuf, environment: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut command = program();
        command.args(["serve", "--port", "0", "--until-stdin-closes"]).arg(&path).args(arguments);
        Self::of(command.envs(environment.iter().copied()), path).unwrap()
    }

    /// The server that this command starts, of files in `path`; `None` if it ends at once.
    pub(crate) fn of(command: &mut Command, path: PathBuf) -> Option<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        if out.read_line(&mut line).unwrap() == 0 {
            child.wait().unwrap();
            return None;
        }
        let rest = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("server printed {line:?}"));
        let address = rest.split_whitespace().next().unwrap().to_owned();
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        Some(Self { child, address, path, temp: None })
    }

    /// A connection over which nothing has been sent.
    pub(crate) fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).unwrap()
    }

    /// Sends a signal such as `-TERM`.
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < LIMIT, "the server did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn put(&self, file: &Path, more: &[&str]) -> Ended {
        run(program().arg("put").arg(file).arg(&self.address).args(more))
    }

    pub(crate) fn get(&self, name: &str, output: &Path, more: &[&str]) -> Ended {
        run(program().args(["get", name, &self.address, "-o"]).arg(output).args(more))
    }

    /// Names in the served directory, also hidden ones.
    pub(crate) fn names(&self) -> Vec<String> {
        names(&self.path)
    }

    /// Names in the served directory of what is no partial file.
    pub(crate) fn complete_names(&self) -> Vec<String> {
        complete_names(&self.path)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bytes of a frame of the control stream: the number of its variant, then its fields.
pub(crate) fn frame(content: &impl serde::Serialize) -> Vec<u8> {
    let payload = postcard::to_allocvec(content).unwrap();
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [b"F2", &[5][..], &length, &payload].concat()
}

/// The frame without content.
pub(crate) fn keep_alive_frame() -> Vec<u8> {
    frame(&9_u8)
}

/// The frame by which a client opens a session.
pub(crate) fn open_frame() -> Vec<u8> {
    frame(&(0_u8, [0_u8; 16]))
}

/// The frame by which a client asks for a ring: chunks of 4 KiB, one slot.
pub(crate) fn allocate_frame() -> Vec<u8> {
    frame(&(23_u8, 4096_u32, 1_u16))
}

/// The frame by which a client announces a file.
pub(crate) fn put_frame(name: &str, size: u64) -> Vec<u8> {
    // No resuming; not executable, no time.
    frame(&(2_u8, name, Some(size), false, false, (false, None::<(i64, u32)>)))
}

pub(crate) fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Names of what is no partial file.
pub(crate) fn complete_names(path: &Path) -> Vec<String> {
    names(path).into_iter().filter(|name| !name.ends_with(".partial")).collect()
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Failed with this code and one line that contains `text`.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, text: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        let error = self.err.lines().filter(|line| line.starts_with("flagcx-p2p: ")).collect::<Vec<_>>();
        assert_eq!(error.len(), 1, "{self:?}");
        assert!(error[0].contains(text), "expected {text:?}: {self:?}");
        self
    }
}

/// Runs a command to its end, at most [`LIMIT`].
pub(crate) fn run(command: &mut Command) -> Ended {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    finish(child)
}

/// Waits for a started command, at most [`LIMIT`].
pub(crate) fn finish(child: Child) -> Ended {
    let started = Instant::now();
    let id = child.id();
    let (done, waited) = std::sync::mpsc::channel();
    let watchdog = std::thread::spawn(move || {
        if waited.recv_timeout(LIMIT).is_err() {
            let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
        }
    });
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let _ = done.send(());
    watchdog.join().unwrap();
    assert!(started.elapsed() < LIMIT, "did not end within {LIMIT:?}");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { code: status.code(), out: text(stdout), err: text(stderr) }
}
