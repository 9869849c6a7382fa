//! Clients that are not peers, at every listener of an engine: control, lanes, notifications, data.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::notify::Message;

use crate::chaos::random::Random;
use crate::chaos::rig::{Rig, Way};
use crate::chaos::round::{self, FAMILIES};
use crate::chaos::tally::Tally;
use crate::chaos::watchdog;
use crate::support;

/// Clients of each kind.
const EACH: u64 = 180;

/// Everything that an engine listens on, the lane listeners of handshakes too, is in this many ports.
const PORTS: u16 = 48;

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Sends malformed bytes and closes.
    Garbage,
    /// Begins like a peer and goes on with garbage.
    Pretender,
    /// Sends one byte now and then.
    Slow,
    /// Sends nothing and stays.
    HalfOpen,
}

const KINDS: [Kind; 4] = [Kind::Garbage, Kind::Pretender, Kind::Slow, Kind::HalfOpen];

/// Peers are served meanwhile: new ones get in, transfers are done, notifications arrive.
pub fn connect_unrelated(seed: u64, tally: &mut Tally) {
    let way = if crate::chaos::over_verbs() { Way::Verbs } else { Way::Tcp };
    let mut random = Random::new(seed);
    for kind in KINDS {
        watchdog::step("unrelated clients connect");
        let first = 30_000 + random.below(2_000) as u16;
        let ports = format!("{first}-{}", first + PORTS - 1);
        let rig =
            Rig::new(way, &[("FLAGCX_P2P_PORT_RANGE", &ports), ("FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS", "4000")]);
        let over = AtomicBool::new(false);
        let connects = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..2)
                .map(|index| {
                    let random = Random::new(seed ^ index << 32 ^ kind as u64);
                    let over = &over;
                    scope.spawn(move || connect_until(kind, first, random, over))
                })
                .collect();
            let served = StopOnDrop(&over);
            serve_peers(&rig, &mut random, tally);
            drop(served);
            clients.into_iter().map(|client| client.join().unwrap()).sum::<u64>()
        });
        assert!(connects >= EACH, "{kind:?}: only {connects} got through to a listener");
        tally.faults += connects;
    }
}

/// Stops the clients, also when the test has failed, so that the failure is reported.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Connects to every port of the range, over and over; returns how often a listener accepted.
fn connect_until(kind: Kind, first: u16, mut random: Random, over: &AtomicBool) -> u64 {
    let mut connects = 0;
    let mut open = Vec::new();
    while connects < EACH || !over.load(Ordering::Relaxed) {
        for port in first..first + PORTS {
            let Ok(mut stream) = TcpStream::connect_timeout(
                &SocketAddr::from(([127, 0, 0, 1], port)),
                Duration::from_millis(200),
            ) else {
                continue;
            };
            connects += 1;
            let _ = stream.set_read_timeout(Some(Duration::from_micros(200)));
            let length = 1 + random.below(300) as usize;
            let garbage = random.bytes(length);
            match kind {
                Kind::Garbage => {
                    let _ = stream.write_all(garbage);
                }
                Kind::Pretender => {
                    // The preamble of a bootstrap socket, as any peer sends it.
                    let _ = stream.write_all(&preamble(port));
                    let _ = stream.write_all(garbage);
                    let _ = stream.read(&mut [0; 64]);
                }
                Kind::Slow => {
                    let _ = stream.write_all(&garbage[..1]);
                    open.push(stream);
                }
                Kind::HalfOpen => open.push(stream),
            }
        }
        for stream in &mut open {
            if let Kind::Slow = kind {
                let _ = stream.write_all(&[0]);
            }
        }
        if open.len() > 100 {
            open.drain(..50);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    connects
}

/// A valid preamble of one of the socket kinds.
fn preamble(port: u16) -> Vec<u8> {
    use flagcx_p2p::internals::control::wire::SocketKind;
    match port % 2 {
        0 => SocketKind::Bootstrap.encode().to_vec(),
        _ => SocketKind::Lanes.encode().to_vec(),
    }
}

fn serve_peers(rig: &Rig, random: &mut Random, tally: &mut Tally) {
    let server = rig.server.as_ref().unwrap();
    server.start_rpc_server().unwrap();
    for turn in 0..12_u8 {
        let begin = Instant::now();
        let port = server.rpc_port().unwrap();
        let newcomer = rig.client.connect("127.0.0.1", port, 0, false).unwrap();
        tally.recovery.push(begin.elapsed());
        assert!(newcomer.is_usable());
        for family in FAMILIES {
            assert!(round::run(rig, family, random, tally), "unrelated clients disturb a transfer");
        }
        let message = Message::new(b"chaos", &[turn; 32]);
        assert!(newcomer.send_notification(&message).is_ok());
        let begin = Instant::now();
        support::eventually("a notification arrives", || server.take_notifications().contains(&message));
        tally.detection.push(begin.elapsed());
        drop(Arc::clone(&newcomer));
        std::thread::sleep(Duration::from_millis(20));
    }
}
