//! A server in a second process, for `demo` and `bench`.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;

use flagcx_p2p::internals::engine;
use flagcx_p2p::internals::fabric::Provider;

use crate::error::{CliError, Result, While};
use crate::listener::READY;
use crate::logging;
use crate::settings;

/// The command that starts this tool. Set once, before anything reads it.
static ITSELF: OnceLock<Vec<OsString>> = OnceLock::new();

/// Says by which command other processes of this tool are started.
pub(crate) fn start_again_by(command: Vec<OsString>) {
    // The first call holds: the command is the same at every later one.
    let _ = ITSELF.set(command);
}

/// A `serve` process of this very program. Ends when dropped, and also when this process is killed: it reads its
/// standard input, a pipe that only this process holds.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    /// Its `IP:PORT`.
    pub(crate) address: String,
}

impl ServerProcess {
    /// Starts it on a free loopback port and waits until it listens.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        let arguments = ["serve", "--port", "0", "--idle-limit", "3600", "--until-stdin-closes", "--"];
        let arguments = arguments.iter().map(OsStr::new).chain([directory.as_os_str()]);
        Self::spawn(arguments).doing(|| "start the server process".into())
    }

    /// Starts a `bench serve` instead, which may use all memory.
    pub(crate) fn start_bench() -> Result<Self> {
        let arguments = ["bench", "serve", "--port", "0", "--pool-limit", "1024T", "--until-stdin-closes"];
        Self::spawn(arguments.iter().map(OsStr::new)).doing(|| "start the server process".into())
    }

    fn spawn<'a>(arguments: impl Iterator<Item = &'a OsStr>) -> Result<Self> {
        let mut itself = ITSELF.get().into_iter().flatten();
        let program = itself
            .next()
            .ok_or_else(|| CliError::other("the path of this program is not known: is /proc mounted?"))?;
        let mut command = Command::new(program);
        command.args(itself).args(arguments);
        // Ctrl-C is for this process, which still needs the other one to end in order.
        command.process_group(0);
        // This process has looked for a NIC, and has logged if there is none: once for each run is enough.
        if engine::devices(&*settings::config(None)?)?.selection().provider == Some(Provider::Software) {
            command.env("FLAGCX_P2P_FABRIC", "software");
        }
        command.envs(logging::of_started());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| CliError::other(error.to_string()))?;
        let mut lines = child.stdout.take().map(BufReader::new);
        let mut started = Self { child, address: String::new() };
        let mut first = String::new();
        if let Some(lines) = &mut lines {
            lines.read_line(&mut first).map_err(|error| CliError::other(error.to_string()))?;
        }
        started.address = first
            .strip_prefix(READY)
            .and_then(|rest| rest.split_whitespace().next())
            .ok_or_else(|| CliError::other("it ended before it listened; see its message above"))?
            .to_owned();
        // Its output is not shown, and must not fill the pipe.
        thread::Builder::new()
            .name("server-output".into())
            .spawn(move || lines.map(|mut lines| std::io::copy(&mut lines, &mut std::io::sink())))
            .map_err(|error| CliError::other(error.to_string()))?;
        Ok(started)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
