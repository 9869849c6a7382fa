//! An etcd that a test starts, stops and starts again.
#![allow(dead_code, unreachable_pub, reason = "a module of each test that includes it, which uses its share")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A server of one member, with its data in a folder of its own. It ends with this, and with the test's process.
pub struct Server {
    /// `host:port` for clients.
    pub client: String,
    peer: String,
    folder: TempDir,
    tls: Option<(PathBuf, PathBuf)>,
    /// A shell that ends etcd when it ends.
    shell: Option<Child>,
    pid: u32,
}

/// Whether etcd is there. Where it is not, prints so; on a build server that is a failure.
pub fn is_installed() -> bool {
    if Command::new("etcd")
        .arg("--version")
        .envs(ARCHITECTURE)
        .output()
        .is_ok_and(|shown| shown.status.success())
    {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "etcd is not installed; the package is etcd-server");
    println!("not run: etcd is not installed (package etcd-server)");
    false
}

impl Server {
    /// A running server; `None` without etcd.
    pub fn start() -> Option<Self> {
        is_installed().then(|| Self::new(None))
    }

    /// One with TLS, by a certificate and its key.
    pub fn with_tls(certificate: &Path, key: &Path) -> Self {
        Self::new(Some((certificate.to_owned(), key.to_owned())))
    }

    fn new(tls: Option<(PathBuf, PathBuf)>) -> Self {
        // Another program may take a port before etcd does.
        for _ in 0..5 {
            let mut server = Self {
                client: free_address(),
                peer: free_address(),
                folder: tempfile::tempdir().unwrap(),
                tls: tls.clone(),
                shell: None,
                pid: 0,
            };
            if server.run() {
                return server;
            }
        }
        panic!("etcd does not start");
    }

    /// Starts it again, with the data that it had.
    pub fn start_again(&mut self) {
        assert!(self.run(), "etcd does not start again");
    }

    /// Starts it again, with nothing.
    pub fn start_empty(&mut self) {
        self.folder = tempfile::tempdir().unwrap();
        self.start_again();
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            drop(shell.stdin.take());
            shell.wait().unwrap();
        }
    }

    /// Stops it, so that it accepts connections and answers nothing, until [`Server::go_on`].
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    pub fn url(&self, rest: &str) -> String {
        format!("etcd://{}/{rest}", self.client)
    }

    /// A request to its gateway, past the directory.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let request = ureq::post(format!("http://{}/v3/{path}", self.client));
        let answer = request.send(body.to_string()).unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    /// The present revision.
    pub fn revision(&self) -> i64 {
        let answer = self.post("kv/range", &json!({ "key": "AA==" }));
        answer["header"]["revision"].as_str().unwrap().parse().unwrap()
    }

    fn run(&mut self) -> bool {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let (client, peer) = (format!("{scheme}://{}", self.client), format!("http://{}", self.peer));
        let log = self.folder.path().join("log");
        // What an earlier start has written must not be taken for this one's.
        let _ = std::fs::remove_file(&log);
        let mut shell = Command::new("sh");
        shell
            .args([
                "-c",
                r#"etcd "$@" >"$LOG" 2>&1 & echo $!; read -r _; kill -9 $! 2>/dev/null; wait"#,
                "etcd",
            ])
            .env("LOG", &log)
            .envs(ARCHITECTURE)
            .arg(format!("--data-dir={}", self.folder.path().join("data").display()))
            .args(["--name=one", "--heartbeat-interval=50", "--election-timeout=500", "--unsafe-no-fsync"])
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=one={peer}"));
        if let Some((certificate, key)) = &self.tls {
            shell.arg(format!("--cert-file={}", certificate.display()));
            shell.arg(format!("--key-file={}", key.display()));
        }
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut pid = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        self.pid = pid.trim().parse().unwrap();
        self.shell = Some(shell);
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if text.contains("ready to serve client requests") {
                return true;
            }
            if !Path::new(&format!("/proc/{}/exe", self.pid)).exists() {
                println!("etcd ended: {}", text.lines().last().unwrap_or_default());
                break;
            }
            sleep(Duration::from_millis(20));
        }
        self.kill();
        false
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid.to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

/// Before 3.5 etcd refuses to run on ARM64 without it; others ignore it.
pub const ARCHITECTURE: Option<(&str, &str)> =
    if cfg!(target_arch = "aarch64") { Some(("ETCD_UNSUPPORTED_ARCH", "arm64")) } else { None };

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An address that is free now.
pub fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}
