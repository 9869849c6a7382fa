//! The software fabric's data connections with a pre-shared key: what each side sends before the other has proven it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

mod conformance;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use conformance::{LocalPeer, Peer, caps, peer};
use flagcx_p2p::internals::auth::{self, AuthError, AuthKey, Nonces, Purpose};
use flagcx_p2p::internals::fabric::software::{self, SoftwareDevice};
use flagcx_p2p::internals::fabric::{Device, PathKind, SoftwareOptions};

fn device(key: Option<&str>) -> Arc<SoftwareDevice> {
    let auth_key = key.map(|key| AuthKey::new(key.as_bytes()));
    let options = SoftwareOptions { auth_key, force: Some(PathKind::Tcp), ..SoftwareOptions::default() };
    software::open_software(&options).unwrap().remove(0)
}

#[test]
fn keys_must_agree() {
    let attempt = |ours, theirs| {
        let ours: Arc<dyn Device> = device(ours);
        let theirs: Arc<dyn Device> = device(theirs);
        let mut target = LocalPeer::new(theirs);
        let completions = Arc::clone(&ours).create_completion_queue(4).unwrap();
        let mut queue_pair = ours.create_queue_pair(&completions.handle(), &caps()).unwrap();
        let (_, address) = target.queue_pair();
        queue_pair.connect(&address, &peer::path()).map_err(|error| error.to_string())
    };
    assert_eq!(attempt(Some("a"), Some("a")), Ok(()));
    assert_eq!(attempt(None, None), Ok(()));
    for (ours, theirs, reason) in [
        (Some("a"), Some("b"), AuthError::Refused),
        (Some("a"), None, AuthError::KeyMissing),
        (None, Some("a"), AuthError::KeyRequired),
    ] {
        let error = attempt(ours, theirs).unwrap_err();
        assert!(error.contains(&reason.to_string()), "{error}");
    }
}

/// A greeting as it is on the wire: 32 bytes.
fn greeting(keyed: bool, nonce: [u8; 16]) -> Vec<u8> {
    [&b"FCXP2Psw"[..], &[5, 0, u8::from(keyed), 0, 0, 0, 0, 0], &nonce].concat()
}

/// The bytes that a client of the data listener gets which sends `parts`, one after each answer, until the connection
/// is closed.
fn received(listener: SocketAddr, parts: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(listener).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
    for part in parts {
        stream.write_all(part).unwrap();
        match stream.read(&mut buffer) {
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    match stream.read_to_end(&mut received) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    received
}

#[test]
fn a_client_without_the_key_gets_a_random_number_and_nothing_else() {
    let mut target = LocalPeer::new(device(Some("a")));
    let (_, address) = target.queue_pair();
    let listener = SocketAddr::new(address.ip(), address.lid as u16);
    let nonces = Nonces { initiator: [1; 16], responder: [2; 16] };
    let (_, proof_of_another_session) = auth::Initiator::prove(&AuthKey::new(b"a"), Purpose::DATA, nonces);
    let mut numbers = Vec::new();
    let keyed = greeting(true, [1; 16]);
    for parts in [
        vec![&keyed[..], &proof_of_another_session],
        vec![&keyed, &[0; 32]],
        vec![&keyed, &[0; 400]],
        vec![&greeting(false, [0; 16])],
    ] {
        let received = received(listener, &parts);
        let number = received[16..].try_into().unwrap();
        assert_eq!(received, greeting(true, number));
        numbers.push(number);
    }
    assert_eq!(received(listener, &[&[0x41; 32]]), [0_u8; 0]);
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 4, "a random number was used twice");
}

/// An offer names the process and a place of its memory: only a responder that has proven the key gets it.
#[test]
fn a_listener_without_the_key_gets_a_random_number_and_a_proof_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let pretending = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut hello = [0; 32];
        stream.read_exact(&mut hello).unwrap();
        assert_eq!(hello.to_vec(), greeting(true, hello[16..].try_into().unwrap()));
        stream.write_all(&greeting(true, [3; 16])).unwrap();
        stream.read_exact(&mut [0; 32]).unwrap();
        stream.write_all(&[0; 32]).unwrap();
        assert!(matches!(stream.read(&mut [0; 64]), Ok(0) | Err(_)));
    });
    let device: Arc<dyn Device> = device(Some("a"));
    let completions = Arc::clone(&device).create_completion_queue(4).unwrap();
    let mut queue_pair = device.create_queue_pair(&completions.handle(), &caps()).unwrap();
    let mut address = queue_pair.address();
    address.lid = port.into();
    let error = queue_pair.connect(&address, &peer::path()).unwrap_err();
    assert!(error.to_string().contains(&AuthError::WrongKey.to_string()), "{error}");
    pretending.join().unwrap();
}
