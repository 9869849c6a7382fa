//! Senders of notifications that belong to no connection, beside one that does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::control::wire::notification::{Header, MESSAGE_MAGIC, NAME_SIZE};
use flagcx_p2p::internals::notify::Message;

use crate::support;
use crate::victim::{PEER, Victim};
use crate::wire;

/// More than `FLAGCX_P2P_NOTIF_MAX_PEERS` has places for.
const SENDERS: usize = 70;
/// `FLAGCX_P2P_NOTIF_MAX_BYTES`, as it is.
const MOST: u32 = 1 << 20;
/// Sent by the peer, over about a second.
const OF_PEER: usize = 500;
/// Senders that never stop.
const FLOODS: usize = 2;

fn large(length: u32, bytes: &[u8]) -> Vec<u8> {
    [&Header::Large(length).encode()[..], &[b'n'; NAME_SIZE], bytes].concat()
}

/// A message with a valid first word and all bits set in the second, which is reserved.
fn odd_message() -> Vec<u8> {
    let mut bytes = wire::message(&[b'o'; NAME_SIZE], &[b'o'; NAME_SIZE]);
    bytes[..4].copy_from_slice(&MESSAGE_MAGIC.to_le_bytes());
    bytes[4..8].fill(0xff);
    bytes
}

/// Bytes that a client sends, and whether it is closed for them.
fn malformed() -> Vec<(&'static str, Vec<u8>, bool)> {
    vec![
        ("as large as can be", large(MOST, &vec![b'c'; MOST as usize]), false),
        ("empty", large(0, &[]), false),
        ("a name and a text without an end, a reserved word", odd_message(), false),
        ("cut off", wire::message(b"name", b"text")[..100].to_vec(), false),
        ("a large one cut off", large(MOST, &[b'c'; 1000]), false),
        ("a byte too large", large(MOST + 1, &[]), true),
        ("a negative size", large(i32::MIN as u32, &[]), true),
        ("the largest size", large(u32::MAX, &[]), true),
        ("another magic", vec![0x55; 520], true),
        ("a hello where no key is set", Header::Hello.encode().to_vec(), true),
    ]
}

#[test]
fn a_peers_notifications_arrive_beside_senders_without_a_connection() {
    let mut victim = Victim::start(&[]);
    let engine = support::engine(&[]);
    let connection = engine.connect("127.0.0.1", victim.port, 0, false).unwrap();
    let port = victim.notify_port;
    let mut silent: Vec<_> = (0..SENDERS).map(|_| wire::notifications(port).unwrap()).collect();

    let over = AtomicBool::new(false);
    let flooded = AtomicU64::new(0);
    let (mut of_peer, mut of_others, mut longest) = (0, 0, Duration::ZERO);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..FLOODS {
            scope.spawn(|| flood(port, &over, &flooded));
        }
        scope.spawn(|| write_slowly(port, &over));
        let sending = scope.spawn(|| {
            for number in 0..OF_PEER {
                connection.send_notification(&Message::new(PEER, number.to_string().as_bytes())).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        while of_peer < OF_PEER {
            let asked = Instant::now();
            let (peers, others) = victim.received();
            longest = longest.max(asked.elapsed());
            (of_peer, of_others) = (of_peer + peers, of_others + others);
            assert!(begin.elapsed() < support::LIMIT, "{of_peer} of {OF_PEER} notifications of the peer");
            std::thread::sleep(Duration::from_millis(1));
        }
        sending.join().unwrap();
        over.store(true, Ordering::Relaxed);
    });
    silent.retain_mut(|client| !wire::is_closed(client));
    println!(
        "{of_peer} notifications of the peer in {:?}, beside {of_others} of others; {} of {SENDERS} silent senders have a \
         place, {} sent by those that flood",
        begin.elapsed(),
        silent.len(),
        flooded.load(Ordering::Relaxed)
    );
    // Every place was taken, so that some were refused or gave theirs up.
    assert!(silent.len() < SENDERS, "none was refused");
    assert!(of_others > 0, "no flood has reached the victim");
    assert_eq!(of_peer, OF_PEER);
    assert!(victim.is_alive());
}

#[test]
fn notifications_with_a_wrong_size_close_their_socket_and_no_other() {
    let mut victim = Victim::start(&[]);
    let engine = support::engine(&[]);
    let connection = engine.connect("127.0.0.1", victim.port, 0, false).unwrap();
    let before = victim.descriptors();
    let mut clients = Vec::new();
    for (what, bytes, is_closed) in malformed() {
        let mut client = wire::notifications(victim.notify_port).unwrap();
        // One that is refused may be closed before all of it is written.
        assert!(client.write_all(&bytes).is_ok() || is_closed, "{what}");
        clients.push((what, client, is_closed));
    }
    connection.send_notification(&Message::new(PEER, b"beside them")).unwrap();
    let (mut of_peer, mut of_others) = (0, 0);
    support::eventually("those that are whole arrive", || {
        let (peers, others) = victim.received();
        (of_peer, of_others) = (of_peer + peers, of_others + others);
        (of_peer, of_others) == (1, 3)
    });
    for (what, client, is_closed) in &mut clients {
        if *is_closed {
            client.set_read_timeout(Some(wire::PATIENCE)).unwrap();
            // The end, or a reset when some of it had not been read.
            assert!(!matches!(client.read(&mut [0]), Ok(1..)), "{what}: it was answered");
        }
        assert_eq!(wire::is_closed(client), *is_closed, "{what}");
    }
    // What was cut off is given up with its sender.
    drop(clients);
    support::eventually("their descriptors are free", || victim.descriptors() <= before);
    assert_eq!(victim.received(), (0, 0), "something that was not whole has arrived");
    println!("{} senders, of which {of_others} sent whole messages", malformed().len());
}

/// Sends as fast as the victim reads. One that is closed comes again.
fn flood(port: u16, over: &AtomicBool, sent: &AtomicU64) {
    let piece = wire::message(b"flood", &[b'x'; NAME_SIZE]).repeat(64);
    let connect = || -> std::io::Result<TcpStream> {
        let client = wire::notifications(port)?;
        client.set_write_timeout(Some(Duration::from_millis(100)))?;
        Ok(client)
    };
    let mut client = connect();
    while !over.load(Ordering::Relaxed) {
        match client.as_mut().map(|client| client.write(&piece)) {
            Ok(Ok(count)) => drop(sent.fetch_add(count as u64 / 520, Ordering::Relaxed)),
            // Held back by a full queue.
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => {
                std::thread::sleep(Duration::from_millis(1));
                client = connect();
            }
        }
    }
}

/// A byte of a message each second on several sockets, from the preamble on.
fn write_slowly(port: u16, over: &AtomicBool) {
    let mut clients: Vec<_> = (0..4).map(|_| wire::connect(port).unwrap()).collect();
    for byte in flagcx_p2p::internals::control::wire::SocketKind::Notifications.encode() {
        for client in &mut clients {
            // It may have been closed.
            let _ = client.write_all(&[byte]);
        }
        let next = Instant::now() + Duration::from_secs(1);
        while Instant::now() < next {
            if over.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
