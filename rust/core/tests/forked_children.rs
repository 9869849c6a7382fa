//! Children of `fork`: whatever one does with the engine that it has inherited, its parent and their peer do not notice, and
//! one of its own works. Two programs: this process is the peer, the one that it starts forks.
#![allow(clippy::expect_used, reason = "set-up that fails ends the test")]
#![allow(unsafe_code, reason = "forks, and drops what is not its own")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests report what they could not run"
)]

mod forking_program;
#[cfg(feature = "verbs")]
mod nullverbs;
mod support;

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::{Connection, Remote, Request, WhenFull};
use flagcx_p2p::internals::engine::{Engine, RegisterOptions, RegisteredBuffer};
use flagcx_p2p::internals::notify::{self, Message};
use flagcx_p2p::internals::transfer::{Opcode, Status, TransferId};
use flagcx_p2p::internals::{fabric::PathKind, observe};
use forking_program::{LENGTH, Numbers, Part, Program, open_sockets, refusal_of_parent, start};
use rustix::process::{Pid, Signal, kill_process};
#[cfg(feature = "verbs")]
use support::children::expect_pair_works;
use support::children::{expect_success, fork};
use support::{content, eventually};

/// The ways between the two programs.
fn ways() -> &'static [&'static [(&'static str, &'static str)]] {
    if std::env::var("FLAGCX_P2P_FABRIC").is_ok_and(|fabric| fabric == "verbs") {
        return &[&[]];
    }
    &[&[("FLAGCX_P2P_PATH", "tcp")], &[("FLAGCX_P2P_PATH", "cross-memory")]]
}

/// This process: what the program connects to.
struct Peer {
    engine: Arc<Engine>,
    buffer: RegisteredBuffer,
}

impl Peer {
    fn new(settings: &[(&str, &str)]) -> Self {
        let engine = support::engine(settings);
        let buffer = engine.allocate(LENGTH).unwrap();
        Self { engine, buffer }
    }

    /// Runs the program's `case` to its good end, and finds what its processes have written.
    fn run(settings: &[(&str, &str)], case: &str, written: &[Part]) {
        let peer = Self::new(settings);
        peer.engine.start_rpc_server().unwrap();
        let program = start(case, settings, &peer.engine, peer.buffer.address());
        let ended = program.wait_with_output().unwrap();
        assert!(ended.status.success(), "{case} {settings:?}: {}", String::from_utf8_lossy(&ended.stdout));
        let bytes = content(&peer.buffer);
        for part in written {
            assert!(bytes[part.range()] == part.bytes(), "{case} {settings:?}: {part:?}");
        }
    }
}

const PARENT: [Part; 3] = [Part::Before, Part::During, Part::After];

fn run(case: &str) {
    ways().iter().for_each(|settings| Peer::run(settings, case, &PARENT));
}

#[test]
fn a_child_that_exits_or_drops_or_closes_what_it_has_inherited_changes_nothing() {
    run("leaves");
}

#[test]
fn a_child_is_refused_what_it_has_inherited() {
    run("is refused");
}

#[test]
fn a_child_and_a_child_of_it_have_engines_of_their_own() {
    let written = [PARENT.as_slice(), &[Part::Child, Part::Grandchild]].concat();
    ways().iter().for_each(|settings| Peer::run(settings, "begins anew", &written));
}

#[test]
fn a_child_that_starts_another_program_changes_nothing() {
    run("executes");
}

#[test]
fn children_of_a_busy_process_find_no_lock_held() {
    run("is busy");
}

/// Its sockets end with it, and its ports are free, although a child lives.
#[test]
fn a_parent_that_ends_before_its_child_is_seen_to_end() {
    for settings in ways() {
        let peer = Peer::new(settings);
        let mut program = start("ends first", settings, &peer.engine, peer.buffer.address());
        let accepted = peer.engine.accept().unwrap().connection;
        let mut output = BufReader::new(program.stdout.take().unwrap());
        let numbers = loop {
            let mut line = String::new();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the program has ended");
            if let Some((_, answer)) = line.split_once("answer:") {
                break answer.split_whitespace().map(|word| word.parse().unwrap()).collect::<Vec<i32>>();
            }
        };
        let child = Pid::from_raw(numbers[0]).unwrap();
        assert!(accepted.is_usable());
        program.kill().unwrap();
        program.wait().unwrap();
        let killed = Instant::now();
        eventually("its end is seen", || !accepted.is_usable());
        println!("{settings:?}: seen after {:?}", killed.elapsed());
        let address = (peer.engine.address(), numbers[1] as u16);
        eventually("its port is free", || std::net::TcpListener::bind(address).is_ok());
        // Until now it has lived.
        kill_process(child, Signal::KILL).unwrap();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert!(!rest.contains("panicked"), "{rest}");
    }
}

/// Over verbs, on the stand-in: what a child does issues no command on the parent's device.
#[cfg(feature = "verbs")]
#[test]
fn a_child_leaves_the_devices_of_its_parent_alone() {
    Peer::run(ways()[0], "verbs", &[]);
}

/// Not a test of its own: what the other process of the tests above runs.
#[test]
fn program() {
    let Some(program) = Program::asked_for() else {
        println!("not run: it is what the other process of the tests here runs");
        return;
    };
    match program.case.as_str() {
        "leaves" => leave(&program),
        "is refused" => program.with_child(|| expect_refusals(&program), || {}),
        "begins anew" => begin_anew(&program),
        "executes" => execute(&program),
        "is busy" => fork_while_busy(&program),
        "ends first" => end_first(&program),
        #[cfg(feature = "verbs")]
        "verbs" => leave_devices_alone(),
        case => panic!("unknown case {case}"),
    }
}

/// What a child may do without thinking of the engine.
fn leave(program: &Program) {
    // SAFETY: the copies are dropped in a child, which uses nothing of the originals afterwards.
    let take = || unsafe { std::ptr::read(program) };
    let ways: [&dyn Fn(); 5] = [
        &|| {},
        // SAFETY: ends the process.
        &|| unsafe { libc::exit(0) },
        &|| drop(take()),
        &|| {
            program.connection.close();
            program.engine.close();
            drop(take());
        },
        &|| {
            assert_eq!(open_sockets(), 0, "the parent's sockets are closed");
            assert!(program.engine.deregister(program.buffer.region()));
            program.engine.stop_accept();
        },
    ];
    for way in ways {
        program.with_child(way, || {});
    }
}

/// Every call with an inherited handle.
fn expect_refusals(program: &Program) {
    let (engine, connection, parent) = (&program.engine, &program.connection, refusal_of_parent());
    let refused = |error: String| assert!(error.contains(&parent), "{error}");
    refused(engine.here().unwrap_err().to_string());
    refused(engine.metadata().unwrap_err().to_string());
    refused(engine.accept().unwrap_err().to_string());
    refused(engine.start_rpc_server().unwrap_err().to_string());
    refused(engine.connect("127.0.0.1", 9, 0, false).unwrap_err().to_string());
    refused(engine.session("127.0.0.1:9").unwrap_err().to_string());
    refused(engine.allocate(4096).unwrap_err().to_string());
    // SAFETY: nothing is registered.
    let registered = unsafe { engine.register(program.buffer.address(), 64, RegisterOptions::default()) };
    refused(registered.unwrap_err().to_string());
    let described = engine.describe(program.buffer.region(), program.buffer.address(), 64);
    refused(described.unwrap_err().to_string());
    assert!(engine.rpc_port().is_none() && engine.device().is_none());
    assert!(engine.find_region(program.buffer.address(), 1).is_none());
    assert!(engine.ipc_info(program.buffer.address()).is_none());
    assert!(engine.take_notifications().is_empty() && engine.take_all_notifications().is_empty());
    expect_refusals_of_connection(program, connection, &refused);
    // What names no handle is of this process.
    assert!(notify::take_all().is_empty());
    assert!(notify::append(&Message::new(b"child", b"of this process")));
    assert_eq!(notify::take_all().len(), 1);
    observe::prometheus_text(&observe::registry().snapshot()).unwrap();
    engine.close();
}

fn expect_refusals_of_connection(program: &Program, connection: &Connection, refused: &dyn Fn(String)) {
    let remote = flagcx_p2p::internals::transfer::RemoteRange::default();
    let region = Some(program.buffer.region());
    let iov =
        flagcx_p2p::internals::transfer::Iov { local: program.buffer.address(), length: 64, region, remote };
    let piece = [iov];
    refused(connection.here().unwrap_err().to_string());
    refused(connection.submit(Opcode::Write, &piece).unwrap_err().to_string());
    refused(connection.try_submit(Opcode::Read, &piece).unwrap_err().to_string());
    let by_ipc = Request {
        opcode: Opcode::Read,
        iovs: &piece,
        remote: Remote::Ipc(&[]),
        when_full: WhenFull::Wait,
        at_once: false,
    };
    refused(connection.start(&by_ipc).unwrap_err().to_string());
    refused(connection.submit_and_wait(Opcode::Read, &piece).unwrap_err().to_string());
    refused(connection.send_notification(&Message::new(b"child", b"")).unwrap_err().to_string());
    refused(connection.send_notification_bytes(b"child", &[0; 1000]).unwrap_err().to_string());
    // No transfer is reported as done.
    for id in [TransferId(1 << 20), TransferId::COMPLETE] {
        assert!(!connection.has_ended(id) && !connection.cancel(id));
        assert!(matches!(connection.status(id), Status::Unknown));
        assert!(matches!(connection.wait(id, Duration::from_secs(60)), Status::Unknown));
    }
    assert!(
        connection.describe_remote(iov.local, 64).is_none() && connection.remote_key(iov.local, 64).is_none()
    );
    assert!(!connection.is_usable() && connection.info().healthy_lanes == 0);
    assert_eq!(connection.known_regions(), (0, 0));
    connection.forget_failed();
    connection.close();
}

/// Parent, child and grandchild transfer at the same time, with the peer and with each other.
fn begin_anew(program: &Program) {
    let (port, numbers) = (program.port(), Numbers::new());
    let child = || {
        assert_eq!(program.connection.here().unwrap_err().pid, parent_pid());
        let anew = program.anew();
        anew.write(Part::Child);
        anew.read_from(program, port, Part::Before);
        let own_port = anew.port();
        let grandchild = fork(|| {
            // Neither its parent's nor its grandparent's.
            assert_eq!(anew.engine.here().unwrap_err().pid, parent_pid());
            assert_ne!(program.engine.here().unwrap_err().pid, parent_pid());
            assert_eq!(open_sockets(), 0);
            let own = anew.anew();
            own.write(Part::Grandchild);
            own.read_from(program, port, Part::Before);
            own.read_from(&anew, own_port, Part::Child);
        });
        expect_success(grandchild);
        anew.expect_undisturbed();
        // The parent connects as well.
        numbers.send(u64::from(own_port));
        numbers.send(anew.buffer.address());
        eventually("the parent writes to its child", || {
            content(&anew.buffer)[Part::During.range()] == Part::During.bytes()
        });
        // Not before the parent knows that it is done.
        assert_eq!(numbers.receive(), DONE);
    };
    program.with_child(child, || {
        let (port, address) = (numbers.receive() as u16, numbers.receive());
        let host = program.engine.address().to_string();
        let connection = program.engine.connect(&host, port, 0, true).unwrap();
        assert_ne!(connection.info().path, PathKind::InProcess);
        let part = Part::During;
        program.transfer(&connection, Opcode::Write, part, address + part.range().start as u64);
        numbers.send(DONE);
    });
}

/// The parent's last number to its child.
const DONE: u64 = 1;

fn parent_pid() -> u32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs())
}

fn execute(program: &Program) {
    program.with_child(
        || {
            let arguments = [c"true".as_ptr(), std::ptr::null()];
            // SAFETY: both are NUL-terminated; it does not return.
            unsafe { libc::execvp(c"true".as_ptr(), arguments.as_ptr()) };
            panic!("cannot be executed");
        },
        || assert!(std::process::Command::new("true").status().unwrap().success()),
    );
}

/// Threads that hold every lock of the engine from time to time.
fn fork_while_busy(program: &Program) {
    let stop = AtomicBool::new(false);
    let repeat = |act: &(dyn Fn() + Sync)| {
        while !stop.load(Ordering::Relaxed) {
            act();
        }
    };
    program.write(Part::Before);
    std::thread::scope(|scope| {
        // Also when a child fails, so that the threads are not waited for.
        let _stop = scopeguard::guard((), |()| stop.store(true, Ordering::Relaxed));
        scope.spawn(|| repeat(&|| program.write(Part::During)));
        scope.spawn(|| repeat(&|| drop(program.engine.allocate(8192).unwrap())));
        scope.spawn(|| repeat(&|| drop(observe::registry().snapshot())));
        scope.spawn(|| repeat(&|| drop(program.anew())));
        scope.spawn(|| {
            repeat(&|| {
                notify::append(&Message::new(b"busy", b""));
                notify::take_all();
            });
        });
        for number in 0..20 {
            let child = fork(|| match number % 3 {
                0 => drop((program.engine.close(), program.connection.close())),
                1 => expect_refusals(program),
                _ => program.anew().write(Part::Child),
            });
            expect_success(child);
        }
    });
    program.expect_undisturbed();
}

fn end_first(program: &Program) {
    program.write(Part::Before);
    let child = fork(|| std::thread::sleep(Duration::from_secs(50)));
    println!("\nanswer: {} {}", child.as_raw_nonzero(), program.port());
    std::thread::sleep(Duration::from_secs(50));
}

#[cfg(feature = "verbs")]
fn leave_devices_alone() {
    use flagcx_p2p::internals::engine::EngineOptions;
    use flagcx_p2p::internals::fabric::{DeviceList, FabricChoice, FabricOptions};

    let settings = [("FLAGCX_P2P_FABRIC", "verbs"), ("FLAGCX_P2P_BIND", "127.0.0.1")];
    let standin = nullverbs::Standin::new(&[]);
    let list = || {
        let verbs = standin.options();
        let options = FabricOptions { choice: FabricChoice::Verbs, verbs, ..FabricOptions::default() };
        Some(Arc::new(DeviceList::open(&options).unwrap()))
    };
    let devices = list();
    let open = || {
        let options = EngineOptions { gpu_index: 0, devices: devices.clone() };
        Engine::open(support::config(&settings), options).unwrap()
    };
    let pair = support::Pair::between(open(), open(), LENGTH);
    let live = standin.live();
    assert!(live.queue_pairs > 0);
    let child = fork(|| {
        // SAFETY: the copy is dropped in a child, which does not use the original any more.
        let inherited = unsafe { std::ptr::read(&raw const pair) };
        inherited.here.close();
        inherited.client.close();
        drop(inherited);
        assert_eq!(standin.live(), live, "no command was issued");
        expect_pair_works(&settings, list());
    });
    expect_success(child);
    assert!(pair.source.write(0, &Part::Before.bytes()));
    let id = pair.here.submit(Opcode::Write, &[pair.iov(0, 0, Part::Before.bytes().len() as u64)]).unwrap();
    assert_eq!(support::outcome(&pair.here, id), flagcx_p2p::internals::transfer::Outcome::Done);
    assert_eq!(content(&pair.target)[Part::Before.range()], Part::Before.bytes());
    drop(pair);
}
