//! A key on one side only, and addresses that may not connect: refused soon, and nothing of use leaves the process.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::auth::PROOF_SIZE;
use flagcx_p2p::internals::control::wire::{Features, FrameHeader, HANDLE_SIZE, Handle, SocketKind, Tag};
use flagcx_p2p::internals::engine::{Engine, RegisteredBuffer};

/// Refusals come far sooner than any time-out of the handshake.
const SOON: Duration = Duration::from_secs(2);

/// Listeners of one engine are within so many ports.
const PORTS: u16 = 24;

struct Side {
    engine: Arc<Engine>,
    buffer: RegisteredBuffer,
    _directory: tempfile::TempDir,
}

/// An engine with a registered buffer; with a key of its own file if one is named.
fn side(key: Option<&str>, settings: &[(&str, &str)]) -> Side {
    let directory = tempfile::tempdir().unwrap();
    let file: PathBuf = directory.path().join("key");
    let mut settings = settings.to_vec();
    if let Some(key) = key {
        std::fs::write(&file, key).unwrap();
        settings.push(("FLAGCX_P2P_AUTH_KEY_FILE", file.to_str().unwrap()));
    }
    let engine = support::engine(&settings);
    let buffer = engine.allocate(1 << 16).unwrap();
    Side { engine, buffer, _directory: directory }
}

impl Side {
    fn serve(self) -> Self {
        self.engine.start_rpc_server().unwrap();
        self
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::new(self.engine.address(), self.engine.rpc_port().unwrap())
    }

    /// Bytes that a client without the key must not get: the region's address and key.
    fn secrets(&self) -> Vec<Vec<u8>> {
        let desc = self.engine.describe(self.buffer.region(), self.buffer.address(), 64).unwrap();
        vec![desc.address.to_le_bytes().to_vec(), desc.rkey.to_le_bytes().to_vec()]
    }

    fn assert_no_secret_in(&self, bytes: &[u8], client: &str) {
        for secret in self.secrets() {
            let received = bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!received, "{client} received {secret:x?} in {bytes:x?}");
        }
    }
}

const KEY: &str = "correct horse battery staple";
const OTHER: &str = "incorrect horse battery staple";

#[test]
fn a_key_on_one_side_only_or_another_key_ends_at_once() {
    for (ours, theirs) in [(Some(KEY), None), (None, Some(KEY)), (Some(KEY), Some(OTHER))] {
        let (client, server) = (side(ours, &[]), side(theirs, &[]).serve());
        let begin = Instant::now();
        let target = server.address();
        let error = client.engine.connect(&target.ip().to_string(), target.port(), 0, false).unwrap_err();
        assert!(begin.elapsed() < SOON, "it took {:?}: {error}", begin.elapsed());
        assert!(error.to_string().contains("key"), "{error}");
    }
    let (client, server) = (side(Some(KEY), &[]), side(Some(KEY), &[]).serve());
    let target = server.address();
    assert!(client.engine.connect(&target.ip().to_string(), target.port(), 0, false).is_ok());
}

fn handle_frame(features: Option<Features>) -> Vec<u8> {
    let handle = Handle { address: SocketAddr::from(([127, 0, 0, 1], 9)), features }.encode();
    let header = FrameHeader { tag: Tag::Handle as i32, size: HANDLE_SIZE as i32 }.encode();
    [&header[..], &handle].concat()
}

fn features(bits: u32) -> Option<Features> {
    Some(Features { bits, nonce: [7; 16], ..Features::default() })
}

/// All bytes of the other end until it closes, and the time that took.
fn listen_to(mut stream: TcpStream) -> (Vec<u8>, Duration) {
    stream.set_read_timeout(Some(support::LIMIT)).unwrap();
    let begin = Instant::now();
    let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("still open after {:?}: {error}", begin.elapsed()),
        }
    }
    (received, begin.elapsed())
}

fn proof_frame(size: usize) -> Vec<u8> {
    let header = FrameHeader { tag: Tag::Proof as i32, size: size as i32 }.encode();
    [&header[..], &vec![9; size]].concat()
}

#[test]
fn a_client_without_the_key_learns_nothing() {
    let server = side(Some(KEY), &[]).serve();
    // An original peer, one of our kind without a key, one that claims a key, and one that then makes up a proof.
    let made_up = [handle_frame(features(Features::AUTH)), proof_frame(PROOF_SIZE)].concat();
    let longer = [handle_frame(features(Features::AUTH)), proof_frame(PROOF_SIZE + HANDLE_SIZE)].concat();
    // A client gets only a random number, in a handle without other content.
    let random_number = handle_frame(None).len();
    for (client, hello, answer) in [
        ("an original peer", handle_frame(None), 0),
        ("a peer without a key", handle_frame(features(0)), random_number),
        ("a peer with a made-up proof", made_up, random_number),
        ("a peer with a proof of another length", longer, random_number),
    ] {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(&SocketKind::Bootstrap.encode()).unwrap();
        stream.write_all(&hello).unwrap();
        let (received, time) = listen_to(stream);
        assert!(time < SOON, "{client}: {time:?}");
        assert!(received.len() <= answer, "{client} received {} bytes", received.len());
        server.assert_no_secret_in(&received, client);
    }
}

#[test]
fn a_listener_without_the_key_learns_nothing() {
    for bits in [0, Features::AUTH] {
        let client = side(Some(KEY), &[]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let fake = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&handle_frame(features(bits))).unwrap();
            // Nothing that it makes up next is a proof.
            let _ = stream.write_all(&proof_frame(PROOF_SIZE));
            listen_to(stream).0
        });
        let begin = Instant::now();
        assert!(client.engine.connect("127.0.0.1", port, 0, false).is_err());
        assert!(begin.elapsed() < SOON, "it took {:?}", begin.elapsed());
        client.assert_no_secret_in(&fake.join().unwrap(), "a listener without the key");
    }
}

/// Connects to every listener in a port range.
fn connect_everywhere(first: u16) -> Vec<TcpStream> {
    (first..first + PORTS).filter_map(|port| TcpStream::connect(("127.0.0.1", port)).ok()).collect()
}

#[test]
fn every_listener_asks_for_the_key() {
    let range = format!("{}-{}", 18_000, 18_000 + PORTS - 1);
    let server = side(Some(KEY), &[("FLAGCX_P2P_PORT_RANGE", &range)]).serve();
    // A peer with the key: from now on there is a data listener too.
    let peer = side(Some(KEY), &[]);
    let target = server.address();
    let _connection = peer.engine.connect(&target.ip().to_string(), target.port(), 0, false).unwrap();
    let sockets = connect_everywhere(18_000);
    if std::env::var("FLAGCX_P2P_FABRIC").as_deref() != Ok("verbs") {
        assert!(sockets.len() >= 3, "control, notifications, data: only {} listen", sockets.len());
    }
    for mut socket in sockets {
        let port = socket.peer_addr().unwrap().port();
        let hello = SocketKind::Notifications.encode();
        let _ = socket.write_all(&hello).and_then(|()| socket.write_all(&[0; 1024]));
        let (received, _) = listen_to(socket);
        server.assert_no_secret_in(&received, &format!("a client of port {port}"));
        assert!(
            received.len() <= handle_frame(None).len(),
            "a client of port {port} received {} bytes",
            received.len()
        );
    }
}

#[test]
fn every_listener_keeps_to_the_list_of_networks() {
    let range = format!("{}-{}", 18_100, 18_100 + PORTS - 1);
    let strict =
        side(None, &[("FLAGCX_P2P_PORT_RANGE", &range), ("FLAGCX_P2P_ALLOW", "192.0.2.0/24")]).serve();
    // It may connect to others; that opens its data listener.
    let open = side(None, &[]).serve();
    let target = open.address();
    let connected = strict.engine.connect(&target.ip().to_string(), target.port(), 0, true);
    let sockets = connect_everywhere(18_100);
    let expected = if std::env::var("FLAGCX_P2P_FABRIC").as_deref() == Ok("verbs") { 2 } else { 3 };
    assert!(sockets.len() >= expected, "only {} listen; {connected:?}", sockets.len());
    for socket in sockets {
        let port = socket.peer_addr().unwrap().port();
        let (received, time) = listen_to(socket);
        assert!(received.is_empty() && time < SOON, "port {port}: {} bytes, {time:?}", received.len());
    }
}
