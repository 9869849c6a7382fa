//! Connections of FlagCX's next version and of its runtime control to an engine.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a panic is how a test fails, and its output is its report"
)]

mod runtime_client;
mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use runtime_client::{PREAMBLE, ask, connect};
use support::engine;

const HELLO: &[u8] = b"1PXF\x10\0\0\x001PXF\x03\0\x01\0\x01\0\0\0\x10\0\0\0";

#[test]
fn requests_are_met_while_peers_are_waited_for_and_end_no_accept() {
    let (client, server) = (engine(&[]), engine(&[]));
    let accepting = {
        let server = Arc::clone(&server);
        thread::spawn(move || server.accept().map(|accepted| accepted.ip))
    };
    let usual = r#"{"status":0,"slice_size":1073741824,"fragment_limit":4096,"error":""}"#;
    assert_eq!(ask(&server, "GET"), usual);
    assert!(ask(&server, "SET").starts_with(r#"{"status":-1,"#));
    // One member of two is malformed: neither changes.
    assert!(ask(&server, "FLAGCX_P2P_SLICE_SIZE=65536\nFLAGCX_P2P_FRAGMENT_LIMIT=x").contains("decimal"));
    assert_eq!(ask(&server, "GET"), usual);
    let changed = r#"{"status":0,"slice_size":65536,"fragment_limit":4096,"error":""}"#;
    assert_eq!(ask(&server, "FLAGCX_P2P_SLICE_SIZE=65536"), changed);
    assert_eq!(ask(&server, "GET"), changed);
    client.connect(&server.address().to_string(), server.rpc_port().unwrap(), 0, false).unwrap();
    assert_eq!(accepting.join().unwrap().unwrap(), client.address());
}

#[test]
fn clients_that_stop_in_the_middle_hold_no_peer_up() {
    let (client, server) = (engine(&[]), engine(&[]));
    server.start_rpc_server().unwrap();
    let silent: Vec<_> = [&b"1TXF\0\x01\0\0GET"[..], b"1TXF", b"1PXF\x10\0\0\x001PXF", HELLO]
        .into_iter()
        .cycle()
        .take(40)
        .map(|begun| {
            let mut socket = connect(&server);
            socket.write_all(&[PREAMBLE, begun].concat()).unwrap();
            socket
        })
        .collect();
    let begun = Instant::now();
    client.connect(&server.address().to_string(), server.rpc_port().unwrap(), 0, false).unwrap();
    assert!(ask(&server, "GET").contains(r#""status":0"#));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    drop(silent);
}

#[test]
fn with_a_key_neither_gets_a_byte() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, [7; 32]).unwrap();
    let key = ("FLAGCX_P2P_AUTH_KEY_FILE", file.to_str().unwrap());
    let server = engine(&[key, ("FLAGCX_P2P_RUNTIME_CONTROL", "1")]);
    server.start_rpc_server().unwrap();
    for first in [HELLO, b"1TXF\x03\0\0\0GET"] {
        let mut socket = connect(&server);
        socket.write_all(&[PREAMBLE, first].concat()).unwrap();
        assert_eq!(rest(socket), b"");
    }
    let client = engine(&[key]);
    client.connect(&server.address().to_string(), server.rpc_port().unwrap(), 0, false).unwrap();
}

/// What begins with a hello, and what with a handle; and the error names the version that the peer has.
#[test]
fn a_peer_that_hangs_up_is_asked_with_a_hello() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let scripted = thread::spawn(move || {
        let mut first = listener.accept().unwrap().0;
        let mut begun = [0; 16];
        first.read_exact(&mut begun).unwrap();
        assert_eq!(begun, [PREAMBLE, &[4, 0, 0, 0]].concat()[..]);
        drop(first);
        let mut second = listener.accept().unwrap().0;
        let mut begun = [0; 36];
        second.read_exact(&mut begun).unwrap();
        assert_eq!(begun, [PREAMBLE, HELLO].concat()[..]);
        let mut shared = HELLO.to_vec();
        (shared[12], shared[14]) = (5, 2);
        second.write_all(&shared).unwrap();
        assert_eq!(rest(second), b"");
    });
    let error = engine(&[]).connect("127.0.0.1", port, 0, false).unwrap_err().to_string();
    assert!(error.contains("version 5 of implementation 2") && error.contains("version 3"), "{error}");
    scripted.join().unwrap();
}

/// What comes until the peer closes the socket.
fn rest(mut socket: TcpStream) -> Vec<u8> {
    socket.set_read_timeout(Some(support::LIMIT)).unwrap();
    let (mut bytes, mut buffer) = (Vec::new(), [0; 64]);
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return bytes,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            // Closed with bytes of ours unread.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return bytes,
            Err(error) => panic!("{error}"),
        }
    }
}
