//! Clients that send nothing, too little or malformed frames: they hold neither sessions nor disk space.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions"
)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Ended, Server, allocate_frame, frame, keep_alive_frame, open_frame, program, put_frame, run};

const SESSIONS: usize = 16;

/// A client that has a session, as the server's answer shows.
fn session(server: &Server) -> TcpStream {
    let mut client = server.connect();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.write_all(&[open_frame(), allocate_frame()].concat()).unwrap();
    client.read_exact(&mut [0; 8]).unwrap();
    client
}

fn put(server: &Server, name: &str) -> Ended {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("a"), b"content").unwrap();
    server.put(&temp.path().join("a"), &["--name", name])
}

/// The limit that the guide names, and one of the command line.
#[test]
fn one_client_too_many_is_refused_with_the_reason() {
    for (limit, arguments) in [(SESSIONS, &[][..]), (2, &["--max-clients", "2"])] {
        let server = Server::start_with_arguments(arguments);
        let _clients: Vec<_> = (0..limit).map(|_| session(&server)).collect();
        let reason = format!("{limit} clients are served already, the limit of its --max-clients");
        put(&server, "a").failed(1, &reason);
    }
}

/// As many as there are sessions: they send nothing but keep-alive frames, and are dropped within 2 s.
#[test]
fn clients_that_prove_nothing_hold_no_session() {
    let temp = tempfile::tempdir().unwrap();
    let (key, file) = (temp.path().join("key"), temp.path().join("a"));
    fs::write(&key, "a secret of some length").unwrap();
    fs::write(&file, b"content").unwrap();
    for key in [Some(key.to_str().unwrap()), None] {
        let environment: Vec<_> = key.map(|key| ("FLAGCX_P2P_AUTH_KEY_FILE", key)).into_iter().collect();
        let server = Server::start_with(&environment);
        let started = Instant::now();
        let mut silent: Vec<_> = (0..SESSIONS).map(|_| server.connect()).collect();
        // With a key, opening a session is not enough.
        if key.is_some() {
            silent[0].write_all(&open_frame()).unwrap();
        }
        let sending = std::thread::spawn(move || {
            while !silent.is_empty() {
                silent.retain_mut(|client| client.write_all(&keep_alive_frame()).is_ok());
                std::thread::sleep(Duration::from_millis(50));
            }
            started.elapsed()
        });
        let put = run(program().arg("put").arg(&file).arg(&server.address).envs(environment));
        put.succeeded();
        let dropped = sending.join().unwrap();
        assert!(dropped > Duration::from_millis(1500) && dropped < Duration::from_secs(6), "{dropped:?}");
    }
}

#[test]
fn sessions_without_a_request_make_room() {
    let server = Server::start_with_arguments(&["--idle-limit", "1"]);
    let mut clients: Vec<_> = (0..SESSIONS).map(|_| session(&server)).collect();
    for client in &mut clients {
        client.write_all(&keep_alive_frame()).unwrap();
    }
    let mut bytes = Vec::new();
    clients[0].read_to_end(&mut bytes).unwrap();
    let reason = String::from_utf8_lossy(&bytes);
    assert!(reason.contains("no request, or no progress of one, for 1 s"), "{reason:?}");
    // They have 2 s to read the reason.
    let started = Instant::now();
    while put(&server, "a").code != Some(0) {
        assert!(started.elapsed() < Duration::from_secs(10), "they hold their sessions");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Each ends the stream with the reason, and the server serves the next client.
#[test]
fn malformed_frames_are_refused_with_the_reason() {
    let server = Server::start();
    let header = |version: u8, length: u32| [b"F2", &[version][..], &length.to_le_bytes()].concat();
    let mut cut = frame(&(3_u8, 200_u8)); // A name of 200 bytes that are not there.
    cut.extend([0; 16]);
    for (bytes, reason) in [
        (header(5, u32::MAX), "malformed frame: 4294967295 bytes, at most 32768"),
        (header(3, 4), "control stream has version 3"),
        (frame(&200_u8), "malformed frame: "),
        (cut, "malformed frame: "),
        (frame(&(9_u8, 7_u8)), "malformed frame: 1 bytes follow"),
        (frame(&(3_u8, "x".repeat(1025), 0_u64, [0_u8; 32])), "malformed frame: text of 1025 bytes"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "not a flagcx-p2p control stream"),
    ] {
        let mut client = server.connect();
        client.write_all(&bytes).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains(reason), "expected {reason:?}: {answer:?}");
    }
    put(&server, "a").succeeded();
}

/// It announces half of what the disk has, sends nothing, and is dropped.
#[test]
fn an_announced_file_without_data_holds_no_space() {
    let server = Server::start_with_arguments(&["--idle-limit", "1"]);
    let free = || {
        let stat = rustix::fs::statvfs(&server.path).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    let before = free();
    let mut client = session(&server);
    client.write_all(&put_frame("large", before / 2)).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    // Other programs use the disk as well.
    assert!(free() > before - before / 4, "{} of {before} are free", free());
    put(&server, "a").succeeded();
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    let reason = String::from_utf8_lossy(&bytes);
    assert!(reason.contains("no progress"), "{reason:?}");
    assert_eq!(server.names(), ["a"]);

    let mut client = session(&server);
    client.write_all(&put_frame("huge", 1 << 60)).unwrap();
    let mut bytes = [0; 4096];
    let reason = (0..20).map(|_| client.read(&mut bytes).map(|read| bytes[..read].to_vec()).unwrap());
    let reason = reason.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(reason.take_while(|text| !text.is_empty()).any(|text| text.contains("no space for")));
}

/// What a session answers to frames, until it has ended or the client has closed its side.
fn answers(server: &Server, frames: &[Vec<u8>]) -> String {
    let mut client = session(server);
    client.write_all(&frames.concat()).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Requests that fail alone, and frames that end the session, each with the reason. Nothing is stored or shown.
#[test]
fn hostile_requests_store_and_show_nothing() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let server = Server::start();
    std::os::unix::fs::symlink(outside.path(), server.path.join("link")).unwrap();
    fs::write(server.path.join("large"), vec![1; 1 << 20]).unwrap();
    let no_attributes = (false, None::<(i64, u32)>);
    let hash_of_nothing = *blake3::hash(b"").as_bytes();
    let small = |name: &str, sequence: u64, length: u32, hash: [u8; 32]| {
        frame(&(12_u8, name, true, no_attributes, sequence, length, hash))
    };
    let put = |name: &str| frame(&(2_u8, name, Some(10_u64), true, true, no_attributes));
    let get = |name: &str| frame(&(3_u8, name, 0_u64, [0_u8; 32]));
    let list = |folder: &str| frame(&(19_u8, folder));
    let start = |offset: u64| frame(&(15_u8, offset));
    let (sync, absolute) = (frame(&13_u8), outside.path().join("x").to_str().unwrap().to_owned());
    for (frames, reason) in [
        (vec![small("../x", 0, 0, hash_of_nothing), sync.clone()], "names a directory"),
        (vec![small(&absolute, 0, 0, hash_of_nothing), sync.clone()], "is absolute"),
        (vec![small("link/x", 0, 0, hash_of_nothing), sync.clone()], "where a folder is needed"),
        (vec![small(".flagcx-p2p-1.partial", 0, 0, hash_of_nothing), sync.clone()], "is reserved"),
        (vec![small("x", 0, 0, [1; 32]), sync], "differs from the data that was sent"),
        (vec![small("x", 1, 0, hash_of_nothing)], "unexpected Small"),
        (vec![small("x", 0, 4097, hash_of_nothing)], "unexpected Small"),
        (vec![put("link/x")], "where a folder is needed"),
        (vec![put("x"), start(1)], "unexpected Start"),
        (vec![put("x"), start(0), frame(&(5_u8, 0_u64, 11_u32))], "unexpected Filled"),
        (vec![put("x"), start(0), frame(&(5_u8, 7_u64, 1_u32))], "unexpected Filled"),
        (vec![put("x"), start(0), frame(&(16_u8, 0_u64))], "the client did not send all of it"),
        (vec![get("link/secret")], "where a folder is needed"),
        (vec![get("../large")], "names a directory"),
        (vec![frame(&(16_u8, 3_u64))], "unexpected Abort"),
        (vec![frame(&(6_u8, 0_u64))], "unexpected Credit"),
        (vec![get("large"); 260], "unexpected Get"),
        (vec![allocate_frame()], "unexpected Allocate"),
        (vec![list("link")], "is a symbolic link"),
        (vec![list("..")], "names a directory"),
        (vec![list("/")], "is absolute"),
    ] {
        let answer = answers(&server, &frames);
        assert!(answer.contains(reason), "expected {reason:?}: {answer:?}");
        assert_eq!(server.names(), ["large", "link"], "{reason}");
    }
    for moved in [small("x", 0, 0, hash_of_nothing), put("x"), get("large")] {
        let mut client = server.connect();
        client.write_all(&[open_frame(), moved].concat()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("a file before it has asked for a ring"), "{answer:?}");
        assert_eq!(server.names(), ["large", "link"]);
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}
