//! Sandboxes: two processes, of which one or both may not make some system call. What is denied costs a path, never a
//! transfer, or is refused at once with the reason.
//!
//! Each case runs in a process of its own, which plays the initiator and starts the peer.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod chaos;
mod support;

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chaos::peer::{DENY, Peer, executable};
use chaos::rig::{Way, length, settings_for};
use chaos::seccomp;
use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, EngineOptions, RegisteredBuffer};
use flagcx_p2p::internals::fabric::{Opcode, PathKind, Paths};
use flagcx_p2p::internals::transfer::{Iov, Outcome, Status};
use support::pattern;

/// In the environment of a case's process: what the case is.
const CASE: &str = "FLAGCX_P2P_TEST_DENIED_CASE";
/// Cases that run at a time.
const AT_ONCE: usize = 4;
/// No transfer of a few pages takes longer, whatever is denied.
const PROMPT: Duration = Duration::from_secs(2);

const CROSS: Paths = Paths { read: PathKind::CrossMemory, write: PathKind::CrossMemory };
const TCP: Paths = Paths { read: PathKind::Tcp, write: PathKind::Tcp };
const READS_BY_TCP: Paths = Paths { read: PathKind::Tcp, write: PathKind::CrossMemory };
const WRITES_BY_TCP: Paths = Paths { read: PathKind::CrossMemory, write: PathKind::Tcp };

/// The processes that may not make the call.
const INITIATOR: &str = "initiator";
const PEER: &str = "peer";
const BOTH: &str = "both";
/// The initiator from some moment on: it has connected and moved bytes.
const LATE: &str = "late";

#[derive(Clone, Copy, Debug)]
struct Case {
    calls: &'static [&'static str],
    denied: &'static str,
    expected: Paths,
    /// Lines of the initiator's log about what is denied.
    lines: usize,
}

const fn case(calls: &'static [&'static str], denied: &'static str, expected: Paths, lines: usize) -> Case {
    Case { calls, denied, expected, lines }
}

const READ: &str = "process_vm_readv";
const WRITE: &str = "process_vm_writev";

const CASES: &[Case] = &[
    case(&[], BOTH, CROSS, 0),
    case(&[READ], BOTH, READS_BY_TCP, 1),
    case(&[WRITE], BOTH, WRITES_BY_TCP, 1),
    case(&[READ, WRITE], INITIATOR, TCP, 1),
    case(&[READ, WRITE], PEER, CROSS, 0),
    case(&[READ], LATE, READS_BY_TCP, 1),
    case(&[WRITE], LATE, WRITES_BY_TCP, 1),
    case(&[READ, WRITE], LATE, TCP, 2),
    case(&["memfd_create"], INITIATOR, TCP, 1),
    case(&["memfd_create"], PEER, TCP, 0),
    case(&["mincore"], BOTH, CROSS, 0),
    case(&["pidfd_open"], INITIATOR, TCP, 1),
    case(&["pidfd_open"], PEER, CROSS, 0),
    case(&["sendmsg"], INITIATOR, TCP, 1),
    case(&["sendmsg"], PEER, TCP, 0),
    case(&["sendmsg"], LATE, CROSS, 0),
    case(&["recvmsg"], INITIATOR, TCP, 1),
    case(&["recvmsg"], PEER, TCP, 0),
];

#[test]
fn a_denied_call_costs_a_path_and_no_transfer() {
    let each = |(position, case): (usize, &Case)| {
        let errnos: &[_] = match case.calls {
            [] => &[libc::EPERM],
            // 0: a sandbox that does nothing and reports success.
            [READ | WRITE, ..] => &[libc::EPERM, libc::ENOSYS, 0],
            _ => &[libc::EPERM, libc::ENOSYS],
        };
        errnos.iter().map(move |errno| format!("{position} {errno}")).collect::<Vec<_>>()
    };
    let cases = Mutex::new(CASES.iter().enumerate().flat_map(each).collect::<Vec<_>>());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(case) = cases.lock().unwrap().pop() else { break };
                    if let Err(output) = run(&mut again(), &case) {
                        failures.lock().unwrap().push(format!("case {case}:\n{output}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What the engine cannot do without is named, at once.
#[test]
fn a_call_that_nothing_replaces_is_named_in_the_refusal() {
    for call in ["epoll_create1", "eventfd2", "timerfd_create"] {
        if let Err(output) = run(&mut again(), &format!("refused {call}")) {
            panic!("{call}:\n{output}");
        }
    }
}

/// A forced path is not replaced by another one.
#[test]
fn a_forced_path_that_is_denied_one_direction_is_refused() {
    for call in [READ, WRITE] {
        if let Err(output) = run(&mut again(), &format!("forced {call}")) {
            panic!("{call}:\n{output}");
        }
    }
}

/// Nothing of the fabric needs /proc, or room in /dev/shm.
#[test]
fn neither_proc_nor_shared_memory_files_are_needed() {
    let mounts = "mount -t tmpfs none /proc && mount -t tmpfs -o size=4k none /dev/shm && \
                  { head -c 4096 /dev/zero >/dev/shm/full; true; }";
    let in_namespace = |then: &str| {
        let mut command = Command::new("unshare");
        command.args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            &format!("{mounts} && {then}"),
            "sh",
        ]);
        command
    };
    match in_namespace("true").output() {
        Ok(tried) if tried.status.success() => {}
        Ok(tried) => {
            let reason = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
            return println!("skipped: no mount namespace can be made: {reason}");
        }
        Err(error) => return println!("skipped: no mount namespace can be made: unshare: {error}"),
    }
    let mut command = in_namespace("exec \"$@\"");
    command.arg(executable()).args(ARGUMENTS);
    if let Err(output) = run(&mut command, "0 1") {
        panic!("{output}");
    }
}

const ARGUMENTS: [&str; 4] = ["--exact", "case_process", "--nocapture", "--test-threads=1"];

fn again() -> Command {
    let mut command = Command::new(executable());
    command.args(ARGUMENTS);
    command
}

/// Runs a case in `command`'s process; its output if it fails.
fn run(command: &mut Command, case: &str) -> Result<(), String> {
    let output = command.env(CASE, case).stdin(Stdio::null()).output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err([output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat())
}

/// Not a test of its own: what the process of a case runs.
#[test]
fn case_process() {
    let Ok(text) = std::env::var(CASE) else {
        println!("not run: it is what the other process of the tests here runs");
        return;
    };
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    match text.split_once(' ').unwrap() {
        ("refused", call) => expect_refusal(call),
        ("forced", call) => expect_no_connection(call),
        (position, errno) => play(CASES[position.parse::<usize>().unwrap()], errno.parse().unwrap(), &log),
    }
}

/// Not a test of its own: what the peer of a case runs.
#[test]
fn peer_process() {
    chaos::peer::play();
}

fn expect_refusal(call: &str) {
    let config = support::config(&settings_for(Way::Tcp, &[]));
    seccomp::deny(&[call], libc::EPERM);
    let start = Instant::now();
    let options = EngineOptions { gpu_index: 0, devices: None };
    let error = match Engine::open(config, options) {
        Err(error) => error.to_string(),
        Ok(engine) => engine.connect("127.0.0.1", 9, 0, false).map(drop).unwrap_err().to_string(),
    };
    println!("{error}");
    assert!(error.contains("not permitted") && error.contains(call), "{error}");
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
}

fn expect_no_connection(call: &str) {
    let settings = settings_for(Way::CrossMemory, &[]);
    let peer = Peer::start(&settings);
    seccomp::deny(&[call], libc::EPERM);
    let start = Instant::now();
    let error = support::engine(&settings).connect("127.0.0.1", peer.port, 0, false).unwrap_err().to_string();
    println!("{error}");
    assert!(error.contains("the forced path cross-memory is not available"), "{error}");
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
}

fn play(case: Case, errno: i32, log: &Log) {
    let denied = format!("{errno} {}", case.calls.join(" "));
    let mut settings = settings_for(Way::CrossMemory, &[]);
    settings.retain(|(name, _)| *name != "FLAGCX_P2P_PATH");
    let mut of_peer = settings.clone();
    if [PEER, BOTH].contains(&case.denied) {
        of_peer.push((DENY, &denied));
    }
    let peer = Peer::start(&of_peer);
    if [INITIATOR, BOTH].contains(&case.denied) {
        seccomp::deny(case.calls, errno);
    }
    let engine = support::engine(&settings);
    let buffer = engine.allocate(2 * length()).unwrap();
    let connections: Vec<_> = (0..2)
        .map(|_| {
            let start = Instant::now();
            let connection = engine.connect("127.0.0.1", peer.port, 0, false).unwrap();
            assert!(start.elapsed() < PROMPT, "connected after {:?}", start.elapsed());
            // Before any transfer: the connect has found out.
            assert_eq!(connection.info().paths, if case.denied == LATE { CROSS } else { case.expected });
            connection
        })
        .collect();
    if case.denied == LATE {
        for connection in &connections {
            there_and_back(connection, &buffer, &peer, 1);
        }
        seccomp::deny(case.calls, errno);
    }
    for (seed, connection) in connections.iter().enumerate() {
        for turn in 0..3 {
            there_and_back(connection, &buffer, &peer, 10 * seed as u64 + turn + 2);
        }
        mixed(connection, &buffer, &peer);
        let info = connection.info();
        assert_eq!((info.paths, info.path), (case.expected, case.expected.slower()));
        assert_eq!(info.healthy_lanes, info.lanes);
    }
    let text = log.text();
    let lines = text.lines().filter(|line| line.contains(" is denied ("));
    assert_eq!(lines.count(), case.lines, "{text}");
    // Said once, however much is allocated.
    drop(engine.allocate(length()).unwrap());
    let without = case.calls.contains(&"memfd_create") && [INITIATOR, BOTH].contains(&case.denied);
    let told = log.text().matches("Memory that peers cannot map is allocated instead").count();
    assert_eq!(told, usize::from(without), "{}", log.text());
}

/// A WRITE of the buffer's first half and a READ into its second, both compared.
fn there_and_back(connection: &Arc<Connection>, buffer: &RegisteredBuffer, peer: &Peer, seed: u64) {
    let bytes = pattern(seed, length());
    assert!(buffer.write(0, &bytes) && buffer.write(length(), &pattern(seed + 1000, length())));
    transfer(connection, Opcode::Write, &[iov(connection, buffer, peer, 0, 0, length())]);
    transfer(connection, Opcode::Read, &[iov(connection, buffer, peer, length(), 0, length())]);
    assert!(support::content(buffer)[length()..] == bytes, "other bytes came back");
}

/// READs and WRITEs under way together, on the same lanes.
fn mixed(connection: &Arc<Connection>, buffer: &RegisteredBuffer, peer: &Peer) {
    const PIECE: usize = 64;
    let half = length() / 2;
    let bytes = pattern(77, length());
    assert!(buffer.write(0, &bytes));
    transfer(connection, Opcode::Write, &[iov(connection, buffer, peer, 0, 0, length())]);
    // The first half goes back again, the second comes here, alternately.
    let piece = |at: usize, near: usize| [iov(connection, buffer, peer, near, at, PIECE)];
    let ids: Vec<_> = (0..half / PIECE)
        .flat_map(|index| {
            let (there, here) = (index * PIECE, half + index * PIECE);
            [
                connection.submit(Opcode::Write, &piece(there, there)[..]).unwrap(),
                connection.submit(Opcode::Read, &piece(here, length() + here)[..]).unwrap(),
            ]
        })
        .collect();
    for id in ids {
        assert_eq!(connection.wait(id, PROMPT), Status::Ended(Outcome::Done));
    }
    assert!(support::content(buffer)[length() + half..] == bytes[half..], "other bytes came back");
}

fn iov(
    connection: &Connection,
    buffer: &RegisteredBuffer,
    peer: &Peer,
    near: usize,
    far: usize,
    length: usize,
) -> Iov {
    let remote = connection.describe_remote(peer.address + far as u64, length as u32).unwrap();
    let local = buffer.address() + near as u64;
    Iov { local, length: length as u64, region: Some(buffer.region()), remote }
}

fn transfer(connection: &Arc<Connection>, opcode: Opcode, iovs: &[Iov]) {
    let start = Instant::now();
    let id = connection.submit(opcode, iovs).unwrap();
    let status = connection.wait(id, PROMPT);
    assert_eq!(status, Status::Ended(Outcome::Done), "{opcode:?} after {:?}", start.elapsed());
}

/// What this process has logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        io::stdout().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
