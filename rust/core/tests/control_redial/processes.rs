//! Two processes, with proxies before each: what the peers tell each other leads through these. The addresses at which the peer is dialled again
//! do not, but for the tests of what happens when they do.

use std::io::BufRead as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::{Engine, RegisteredBuffer};
use flagcx_p2p::internals::fabric::{Opcode, PathKind};
use flagcx_p2p::internals::observe::{EventKind, event_log};
use flagcx_p2p::internals::transfer::{Iov, Outcome, TransferId};

use crate::alone;
use crate::chaos::network::{Network, PEER};
use crate::nics::{ENOUGH, Nics, PATIENT, make_rails, up};
use crate::other_process::OtherProcess;
use crate::support::own_time::OwnTime;
use crate::support::{self, blocks, content, eventually, outcome};

const ROLE: &str = "FLAGCX_P2P_TEST_REDIAL_PEER";
const LENGTH: usize = ENOUGH;
const NICS: u32 = 2;
const COUNT: u64 = 400;

type Settings<'a> = Vec<(&'a str, &'a str)>;

/// Not a test of its own: what the other process of the tests below runs.
#[test]
fn peer_process() {
    let Ok(role) = std::env::var(ROLE) else {
        println!("not run: it is what the other process of the tests here runs");
        return;
    };
    let settings: Settings<'_> = role.lines().filter_map(|line| line.split_once('=')).collect();
    let engine = engine_of(&settings);
    let buffer = engine.allocate(LENGTH).unwrap();
    println!("\nanswer: {} {}", engine.rpc_port().unwrap(), buffer.address());
    let mut accepting = {
        let engine = Arc::clone(&engine);
        Some(std::thread::spawn(move || engine.accept().unwrap().connection))
    };
    let (mut connection, mut regions, mut numbers) = (None::<Arc<Connection>>, Vec::new(), Vec::new());
    let mut sending = None;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<_> = line.split_whitespace().collect();
        let connection = connection.get_or_insert_with(|| accepting.take().unwrap().join().unwrap());
        let answer = match words[0] {
            "fill" => {
                assert!(buffer.write(0, &blocks(words[1].parse().unwrap(), LENGTH)));
                "done".to_owned()
            }
            "holds" => (content(&buffer) == blocks(words[1].parse().unwrap(), LENGTH)).to_string(),
            "region" => {
                regions.push(engine.allocate(4096).unwrap());
                regions.last().unwrap().address().to_string()
            }
            "resumed" => connection.channel_record().resumed().to_string(),
            "usable" => connection.is_usable().to_string(),
            "away" => connection.channel_record().is_away().to_string(),
            "close" => {
                connection.close();
                "done".to_owned()
            }
            "rails" => up(connection).len().to_string(),
            "flood" => {
                for number in 0..COUNT {
                    let content = [&number.to_le_bytes()[..], &[7; 4000]].concat();
                    connection.send_notification_bytes(b"number", &content).unwrap();
                }
                "done".to_owned()
            }
            "notify" => {
                sending = Some(Sending::start(connection));
                "done".to_owned()
            }
            "stop" => sending.take().unwrap().stop().to_string(),
            "received" => {
                receive(&engine, &mut numbers);
                (numbers.len() as u64).to_string()
            }
            "in_order" => (0..).zip(&numbers).all(|(expected, number)| expected == *number).to_string(),
            other => panic!("unknown command {other}"),
        };
        println!("\nanswer: {answer}");
    }
    engine.close();
}

/// Numbered notifications, until they are to stop.
struct Sending {
    /// Written by the test, read by the thread.
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Sending {
    fn start(connection: &Arc<Connection>) -> Self {
        let (connection, is_over) = (Arc::clone(connection), Arc::new(AtomicBool::new(false)));
        let stops = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut number = 0_u64;
            while number < COUNT || !stops.load(Ordering::Relaxed) {
                connection.send_notification_bytes(b"number", &number.to_le_bytes()).unwrap();
                number += 1;
                if number.is_multiple_of(2) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            number
        });
        Self { is_over, thread }
    }

    /// How many were sent.
    fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn receive(engine: &Engine, numbers: &mut Vec<u64>) {
    let arrived = engine.take_all_notifications();
    numbers.extend(arrived.iter().map(|one| u64::from_le_bytes(one.content()[..8].try_into().unwrap())));
}

/// Among the settings: the path of an engine with several NICs, of which the lanes do not lead through the proxies.
const PATH_OF_NICS: &str = "FLAGCX_P2P_TEST_PATH";

fn engine_of(settings: &[(&str, &str)]) -> Arc<Engine> {
    let path = settings.iter().find(|(name, _)| *name == PATH_OF_NICS).map(|(_, path)| *path);
    match path
        .map(|path| [PathKind::CrossMemory, PathKind::Tcp].into_iter().find(|kind| kind.to_string() == path))
    {
        Some(path) => Nics::on_path(NICS, path).engine(settings),
        None => support::engine(settings),
    }
}

struct Processes {
    engine: Arc<Engine>,
    here: Arc<Connection>,
    near: RegisteredBuffer,
    peer: OtherProcess,
    address: u64,
    network: Network,
}

impl Processes {
    fn new(seed: u64, settings: &[(&str, &str)]) -> Self {
        let network = Network::new(seed);
        let settings =
            [settings, &[("FLAGCX_P2P_XFER_TIMEOUT_MS", "20000"), ("FLAGCX_P2P_QPS_PER_CONN", "2")]].concat();
        let lines: Vec<_> =
            network.of_peer(&settings).iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut peer = OtherProcess::start(command.env(ROLE, lines.join("\n")), "processes::peer_process");
        let numbers = peer.numbers();
        let engine = engine_of(&network.of_here(&settings));
        let near = engine.allocate(LENGTH).unwrap();
        let here = engine.connect(PEER, numbers[0] as u16, 0, false).unwrap();
        assert_eq!(peer.ask("usable"), ["true"]);
        eventually("this end knows where to dial", || here.channel_record().is_resumable());
        Self { engine, here, near, peer, address: numbers[1], network }
    }

    fn submit(&self, opcode: Opcode) -> TransferId {
        let remote = self.here.describe_remote(self.address, LENGTH as u32).unwrap();
        let iov = Iov {
            local: self.near.address(),
            length: LENGTH as u64,
            region: Some(self.near.region()),
            remote,
        };
        self.here.submit(opcode, &[iov]).unwrap()
    }

    /// The channel is made anew at both ends, for the `count`th time.
    fn wait_for_resume(&mut self, count: u64) {
        let (here, peer) = (&self.here, &mut self.peer);
        eventually("both ends have the channel anew", || {
            here.channel_record().resumed() >= count && peer.ask_numbers("resumed")[0] >= count
        });
        assert!(self.here.is_usable() && self.peer.ask("usable") == ["true"]);
    }

    fn check(&mut self, opcode: Opcode, seed: u64, disturb: impl FnOnce(&Network)) {
        match opcode {
            Opcode::Write => assert!(self.near.write(0, &blocks(seed, LENGTH))),
            Opcode::Read => assert_eq!(self.peer.ask(&format!("fill {seed}")), ["done"]),
        }
        let id = self.submit(opcode);
        disturb(&self.network);
        assert_eq!(outcome(&self.here, id), Outcome::Done, "{opcode:?} {seed}");
        match opcode {
            Opcode::Write => assert_eq!(self.peer.ask(&format!("holds {seed}")), ["true"]),
            Opcode::Read => assert!(content(&self.near) == blocks(seed, LENGTH)),
        }
    }
}

const REDIAL: (&str, &str) = ("FLAGCX_P2P_CONTROL_REDIAL", "15000");
const DIRECT: (&str, &str) = ("FLAGCX_P2P_CONTROL_REDIAL_ADDRESSES", "127.0.0.2,127.0.0.1");

/// All sockets between the two are reset at once, those of lanes, of notifications and of the channel; then the first address refuses everybody.
#[test]
fn an_address_that_is_lost_is_replaced_by_another_one() {
    let _alone = alone();
    // Lanes go by the kernel's copies between processes: they have another way than the channel.
    for path in ["cross-memory", "tcp"] {
        let mut pair = Processes::new(7, &[REDIAL, DIRECT, PATIENT, (PATH_OF_NICS, path)]);
        make_rails(&pair.here, &pair.near, pair.address, NICS as usize);
        pair.here.send_notification_bytes(b"number", &0_u64.to_le_bytes()).unwrap();
        eventually("a notification arrives", || pair.peer.ask_numbers("received")[0] == 1);
        pair.check(Opcode::Write, 1, |network| {
            network.refuse(true);
            network.cut();
        });
        pair.wait_for_resume(1);
        // The peer's own notifications, and those to it, over sockets that are made anew.
        let here = Arc::clone(&pair.here);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 1..COUNT {
                    here.send_notification_bytes(b"number", &number.to_le_bytes()).unwrap();
                }
            });
            pair.check(Opcode::Read, 2, |network| network.cut());
        });
        eventually("all notifications arrive", || pair.peer.ask_numbers("received")[0] == COUNT);
        assert_eq!(pair.peer.ask("in_order"), ["true"]);
        let region = pair.peer.ask_numbers("region")[0];
        eventually("a new region is known", || pair.here.describe_remote(region, 4096).is_some());
        assert_eq!((up(&pair.here).len(), pair.peer.ask("rails")), (2, vec!["2".to_owned()]));
        pair.check(Opcode::Write, 3, |_| {});
    }
}

/// Everything leads through the proxies, lanes too, and is reset again and again.
#[test]
fn nothing_is_lost_or_doubled_by_a_network_that_is_cut() {
    let _alone = alone();
    let addresses = ("FLAGCX_P2P_CONTROL_REDIAL_ADDRESSES", PEER);
    let mut pair = Processes::new(8, &[REDIAL, addresses]);
    let sending = Sending::start(&pair.here);
    assert_eq!(pair.peer.ask("notify"), ["done"]);
    for seed in 0..12_u64 {
        std::thread::sleep(Duration::from_millis(23));
        match seed % 3 {
            0 => pair.network.cut(),
            _ => pair.network.cut_some(seed),
        }
    }
    // On a busy machine the channel may not be back before the last of these.
    while pair.here.channel_record().resumed() < 2 {
        let count = pair.here.channel_record().resumed() + 1;
        pair.network.cut();
        pair.wait_for_resume(count);
    }
    let [from_here, from_there] = [sending.stop(), pair.peer.ask_numbers("stop")[0]];
    let mut numbers = Vec::new();
    eventually("all arrive here", || {
        receive(&pair.engine, &mut numbers);
        numbers.len() as u64 >= from_there
    });
    assert!(numbers == (0..from_there).collect::<Vec<_>>(), "{} of {from_there}", numbers.len());
    eventually("all arrive there", || pair.peer.ask_numbers("received")[0] >= from_here);
    assert_eq!(
        (pair.peer.ask_numbers("received"), pair.peer.ask("in_order")),
        (vec![from_here], vec!["true".to_owned()])
    );
    for (seed, opcode) in [Opcode::Write, Opcode::Read].into_iter().enumerate() {
        let region = pair.peer.ask_numbers("region")[0];
        pair.check(opcode, seed as u64, |_| {});
        eventually("a new region is known", || pair.here.describe_remote(region, 4096).is_some());
    }
}

/// What the log says of the end of this connection.
fn texts_of_end(connection: &Connection) -> String {
    let peer = Some(connection.info().peer);
    let is_end = |kind| matches!(kind, EventKind::ConnectionLost | EventKind::ConnectionEnded);
    let events = event_log().recent().into_iter().filter(|event| event.peer == peer && is_end(event.kind));
    events.map(|event| event.text + "\n").collect()
}

#[test]
fn the_limit_ends_the_connection_and_says_why() {
    let _alone = alone();
    let settings = [
        ("FLAGCX_P2P_CONTROL_REDIAL", "700"),
        ("FLAGCX_P2P_CONTROL_REDIAL_ADDRESSES", PEER),
        (PATH_OF_NICS, "cross-memory"),
    ];
    let mut pair = Processes::new(9, &settings);
    const LIMIT: Duration = Duration::from_millis(700);
    let (begin, time) = (Instant::now(), OwnTime::start());
    pair.network.refuse(true);
    pair.network.cut();
    std::thread::sleep(Duration::from_millis(300));
    let is_usable = pair.here.is_usable() && pair.peer.ask("usable") == ["true"];
    // A busy machine may have taken all of its time.
    assert!(is_usable || begin.elapsed() >= LIMIT, "not before its time: {:#?}", event_log().recent());
    eventually("both ends have ended", || !pair.here.is_usable() && pair.peer.ask("usable") == ["false"]);
    assert!(begin.elapsed() >= LIMIT, "{:?}", begin.elapsed());
    assert!(!time.exceeds(Duration::from_secs(3)), "{:?}", time.elapsed());
    eventually("it is in the log", || texts_of_end(&pair.here).contains("dialled "));
    let texts = texts_of_end(&pair.here);
    assert!(texts.contains(&format!("{PEER}:")), "the address and why it failed: {texts}");
}

/// What closes the connection while the channel is away says so as soon as the other end is reached again, long before the limit.
#[test]
fn an_end_that_closes_meanwhile_says_so() {
    let _alone = alone();
    let settings = [REDIAL, ("FLAGCX_P2P_CONTROL_REDIAL_ADDRESSES", PEER), (PATH_OF_NICS, "cross-memory")];
    for peer_closes in [true, false] {
        let mut pair = Processes::new(11, &settings);
        pair.network.refuse(true);
        pair.network.cut();
        let (here, peer) = (&pair.here, &mut pair.peer);
        eventually("it is away at both ends", || {
            here.channel_record().is_away() && peer.ask("away") == ["true"]
        });
        let begin = Instant::now();
        match peer_closes {
            true => assert_eq!(peer.ask("close"), ["done"]),
            false => here.close(),
        }
        assert!(begin.elapsed() < Duration::from_secs(2), "it closes without waiting: {:?}", begin.elapsed());
        assert!(if peer_closes { here.is_usable() } else { peer.ask("usable") == ["true"] });
        pair.network.refuse(false);
        let begin = Instant::now();
        eventually("the other end has ended", || !here.is_usable() && peer.ask("usable") == ["false"]);
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        if peer_closes {
            let text = "the peer has closed the connection";
            eventually("it is in the log", || texts_of_end(here).contains(text));
            let texts = texts_of_end(here);
            assert!(!texts.contains("or died"), "it is not known: {texts}");
        }
    }
}

/// An end that sends more than the buffers of the sockets hold, to an application that takes nothing, and is gone before that begins: all of
/// it arrives.
#[test]
fn notifications_of_a_process_that_has_ended_arrive() {
    let _alone = alone();
    let mut pair = Processes::new(12, &[REDIAL, DIRECT, ("FLAGCX_P2P_NOTIF_QUEUE", "16")]);
    assert_eq!(
        (pair.peer.ask("flood"), pair.peer.ask("close")),
        (vec!["done".to_owned()], vec!["done".to_owned()])
    );
    pair.peer.child.kill().unwrap();
    pair.peer.child.wait().unwrap();
    eventually("it has ended", || !pair.here.is_usable());
    let mut numbers = Vec::new();
    eventually("all arrive", || {
        receive(&pair.engine, &mut numbers);
        numbers.len() as u64 >= COUNT
    });
    assert!(numbers == (0..COUNT).collect::<Vec<_>>());
}

/// On the same host the process is seen to end, whatever is dialled.
#[test]
fn a_peer_that_dies_is_not_waited_for() {
    let _alone = alone();
    let mut pair = Processes::new(10, &[REDIAL, DIRECT, (PATH_OF_NICS, "cross-memory")]);
    let time = OwnTime::start();
    pair.peer.child.kill().unwrap();
    pair.peer.child.wait().unwrap();
    eventually("it has ended", || !pair.here.is_usable());
    assert!(!time.exceeds(Duration::from_secs(2)), "{:?}", time.elapsed());
}
