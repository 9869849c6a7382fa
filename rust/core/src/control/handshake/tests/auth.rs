//! Authentication.

use std::io::ErrorKind;

use super::original::bytes;
use super::*;
use crate::auth::{AuthError, Initiator, Nonces, Purpose, Responder};
use crate::control::socket::{connect, connect_once};
use crate::control::wire::{FrameHeader, Handle, SocketKind, Tag};

fn shake_with(initiator: Limits, responder: Limits) -> [Result<Peer, HandshakeError>; 2] {
    let ((one, lanes), (other, their_lanes)) =
        shake((FakeLanes::new(100), initiator), (FakeLanes::new(200), responder));
    if one.is_err() {
        assert_eq!((lanes.created, their_lanes.created), (0, 0), "no queue pair before the proofs");
    }
    [one, other]
}

#[test]
fn the_same_key_is_accepted() {
    for peer in shake_with(limits_with_key(7), limits_with_key(7)) {
        let peer = peer.unwrap();
        assert!(peer.proven);
        let features = peer.features.unwrap();
        assert!(features.has(Features::AUTH | Features::CHANNEL));
        assert!(features.incarnation > 1000);
    }
}

#[test]
fn another_key_is_not() {
    let [initiator, responder] = shake_with(limits_with_key(7), limits_with_key(8));
    let error = initiator.unwrap_err();
    assert_eq!(error.step, Step::Authentication);
    assert!(matches!(error.reason, Reason::Authentication(AuthError::Refused)), "{error}");
    let error = responder.unwrap_err();
    assert!(matches!(error.reason, Reason::Authentication(AuthError::WrongKey)), "{error}");
}

#[test]
fn a_missing_key_is_named_on_both_sides() {
    let reason = |peer: &Result<Peer, HandshakeError>| match peer {
        Err(HandshakeError { reason: Reason::Authentication(error), .. }) => *error,
        other => panic!("{other:?}"),
    };
    let peers = shake_with(limits(), limits_with_key(7));
    assert_eq!(peers.each_ref().map(reason), [AuthError::KeyRequired, AuthError::KeyMissing]);
    let peers = shake_with(limits_with_key(7), limits());
    assert_eq!(peers.each_ref().map(reason), [AuthError::KeyMissing, AuthError::KeyRequired]);
}

/// An initiator of our kind must prove the key even where original engines are accepted without.
#[test]
fn letting_originals_in_does_not_excuse_our_own_kind() {
    let lenient = Limits { allow_original: true, ..limits_with_key(7) };
    let [initiator, responder] = shake_with(limits(), lenient);
    assert!(initiator.is_err() && responder.is_err());
}

fn send_handle(target: SocketAddr, features: Option<Features>) -> Stream {
    let stream = connect(target, soon(), None).unwrap();
    let handle = Handle { address: target, features }.encode();
    let header = FrameHeader { tag: Tag::Handle as i32, size: handle.len() as i32 }.encode();
    stream.write_all_by(&SocketKind::Bootstrap.encode(), soon()).unwrap();
    stream.write_all_by(&[&header[..], &handle].concat(), soon()).unwrap();
    stream
}

/// Nothing more comes, and the connection is closed. That it is so with bytes that were not read makes it a reset.
fn assert_closed(stream: &Stream) {
    let end = stream.read_exact_by(&mut [0], soon()).unwrap_err();
    assert!(matches!(end.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{end}");
}

#[test]
fn an_original_engine_gets_nothing() {
    let (target, responding) = responder(limits_with_key(7));
    let stream = send_handle(target, None);
    assert_closed(&stream);
    let error = responding.join().unwrap().0.unwrap_err();
    assert!(error.to_string().contains("FLAGCX_P2P_AUTH_ALLOW_ORIGINAL"), "{error}");
}

#[test]
fn an_original_engine_enters_where_it_is_let_in() {
    let (target, responding) = responder(Limits { allow_original: true, ..limits_with_key(7) });
    let stream = send_handle(target, None);
    let mut answer = [0; 136];
    stream.read_exact_by(&mut answer, soon()).unwrap();
    assert_ne!(Handle::decode(&answer[8..]).unwrap().address.port(), 0);
    let start = Instant::now();
    drop(stream);
    let error = responding.join().unwrap().0.unwrap_err();
    assert!(matches!(error.reason, Reason::Unreached { .. }), "{error}");
    assert!(error.to_string().contains("the peer closed the connection"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(1), "the end of the bootstrap socket is noticed at once");
}

const CLAIM: Features = Features { bits: Features::AUTH, nonce: [3; 16], ..ZERO };
const ZERO: Features = Features {
    bits: 0,
    max_notification: 0,
    incarnation: 0,
    process: 0,
    nonce: [0; 16],
    host: 0,
    identity: crate::process::ProcessIdentity { pid: 0, fingerprint: 0 },
};

/// The 136 bytes that a blank handle takes: nothing in them is about us, the random number aside.
fn blank_frame(nonce: [u8; 16]) -> Vec<u8> {
    let features = Some(Features { nonce, ..CLAIM });
    let handle = Handle { address: "0.0.0.0:0".parse().unwrap(), features }.encode();
    frame(Tag::Handle, &handle)
}

fn frame(tag: Tag, payload: &[u8]) -> Vec<u8> {
    [&FrameHeader { tag: tag as i32, size: payload.len() as i32 }.encode()[..], payload].concat()
}

/// Reads a blank handle and answers its random number.
fn blank_from(stream: &Stream) -> [u8; 16] {
    let bytes = bytes(stream, 136);
    let nonce = Handle::decode(&bytes[8..]).unwrap().features.unwrap().nonce;
    assert_eq!(bytes, blank_frame(nonce));
    nonce
}

/// Whatever a client without the key sends, it gets 136 bytes at most, of which only a random number is not the same
/// each time. Then the connection is closed.
#[test]
fn a_client_without_the_key_gets_a_random_number_and_nothing_else() {
    let (_, guess) =
        Initiator::prove(&key(8), Purpose::CONTROL, Nonces { initiator: [3; 16], responder: [0; 16] });
    let answers = [
        frame(Tag::Proof, &guess),
        frame(Tag::Proof, &[0; 32]),
        frame(Tag::Proof, &[0; 31]),
        frame(Tag::Proof, &[]),
        frame(Tag::SealedHandle, &[0; 160]),
        blank_frame([3; 16]),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ];
    let mut nonces = Vec::new();
    for answer in answers {
        let (target, responding) = responder(limits_with_key(7));
        let stream = send_handle(target, Some(CLAIM));
        nonces.push(blank_from(&stream));
        stream.write_all_by(&answer, soon()).unwrap();
        assert_closed(&stream);
        assert_eq!(responding.join().unwrap().0.unwrap_err().step, Step::Authentication);
    }
    // A peer of our kind without a key learns that one is required, and is closed at once.
    let (target, responding) = responder(limits_with_key(7));
    let stream = send_handle(target, Some(Features { bits: 0, ..CLAIM }));
    nonces.push(blank_from(&stream));
    assert_closed(&stream);
    assert!(responding.join().unwrap().0.is_err());
    nonces.sort_unstable();
    nonces.dedup();
    assert_eq!(nonces.len(), 8, "a random number was used twice");
}

/// A listener in a peer's place that only claims to have the key gets a random number and a proof, but no address, no
/// incarnation, no token of the process.
#[test]
fn a_listener_without_the_key_gets_a_random_number_and_a_proof_and_nothing_else() {
    for answer in [frame(Tag::Proof, &[0; 32]), frame(Tag::SealedHandle, &[0; 160])] {
        let listener = listener();
        let target = listener.local();
        let pretending = thread::spawn(move || {
            let stream = listener.accept_by(Some(soon())).unwrap();
            assert_eq!(bytes(&stream, 12), SocketKind::Bootstrap.encode());
            blank_from(&stream);
            stream.write_all_by(&blank_frame([3; 16]), soon()).unwrap();
            assert_eq!(bytes(&stream, 40)[..8], frame(Tag::Proof, &[0; 32])[..8]);
            stream.write_all_by(&answer, soon()).unwrap();
            assert_closed(&stream);
        });
        let mut lanes = FakeLanes::new(100);
        let error = initiate(target, &side(1, &Vec::new), &mut lanes, &limits_with_key(7)).unwrap_err();
        assert_eq!(error.step, Step::Authentication, "{error}");
        pretending.join().unwrap();
    }
}

/// The exchange of an initiator with the key, byte for byte.
#[test]
fn an_initiator_with_the_key_is_answered() {
    let (target, responding) = responder(limits_with_key(7));
    let stream = send_handle(target, Some(CLAIM));
    let nonces = Nonces { initiator: CLAIM.nonce, responder: blank_from(&stream) };
    let (initiator, proof) = Initiator::prove(&key(7), Purpose::CONTROL, nonces);
    stream.write_all_by(&frame(Tag::Proof, &proof), soon()).unwrap();
    let answer = bytes(&stream, 40 + 168);
    assert_eq!(answer[..8], frame(Tag::Proof, &[0; 32])[..8]);
    let session = initiator.verify(answer[8..40].try_into().unwrap()).unwrap();
    assert_eq!(answer[40..48], frame(Tag::SealedHandle, &[0; 160])[..8]);
    let handle = &answer[80..];
    session.verify("handle", handle, answer[48..80].try_into().unwrap()).unwrap();
    let lane_listener = Handle::decode(handle).unwrap().address;

    let ours = Handle { address: target, features: Some(CLAIM) }.encode();
    let sealed = [&session.seal("handle", &ours)[..], &ours].concat();
    stream.write_all_by(&frame(Tag::SealedHandle, &sealed), soon()).unwrap();
    let begin = |seal: [u8; 32]| {
        let lane = connect(lane_listener, soon(), None).unwrap();
        let parts = [&SocketKind::Lanes.encode()[..], &seal, &[2, 0, 0, 0]].concat();
        lane.write_all_by(&parts, soon()).unwrap();
        lane
    };
    assert_closed(&begin([0; 32]));
    assert_closed(&begin(session.seal("handle", &[])));
    let lane = begin(session.seal("lanes", &[]));
    assert_eq!(bytes(&lane, 4), [4, 0, 0, 0]);
    drop((lane, stream));
    assert_eq!(responding.join().unwrap().0.unwrap_err().step, Step::LaneRecords);
}

/// A proof is good for one session only, and a handle for the session in which it was sealed.
#[test]
fn what_was_recorded_is_worth_nothing_later() {
    let (target, responding) = responder(limits_with_key(7));
    let stream = send_handle(target, Some(CLAIM));
    let nonces = Nonces { initiator: CLAIM.nonce, responder: blank_from(&stream) };
    let (_, proof) = Initiator::prove(&key(7), Purpose::CONTROL, nonces);
    drop(stream);
    assert!(responding.join().unwrap().0.is_err());
    let (target, responding) = responder(limits_with_key(7));
    let stream = send_handle(target, Some(CLAIM));
    blank_from(&stream);
    stream.write_all_by(&frame(Tag::Proof, &proof), soon()).unwrap();
    assert_closed(&stream);
    assert_eq!(responding.join().unwrap().0.unwrap_err().step, Step::Authentication);
}

/// Such a client holds descriptors for less than a handshake may take, and no port.
#[test]
fn clients_without_proof_are_dropped_soon_and_no_port_is_opened() {
    let silent_at_once = |target| {
        let stream = connect(target, soon(), None).unwrap();
        stream.write_all_by(&SocketKind::Bootstrap.encode(), soon()).unwrap();
        stream
    };
    let silent_later = |target| {
        let stream = send_handle(target, Some(CLAIM));
        stream.read_exact_by(&mut [0; 136], soon()).unwrap();
        stream
    };
    let clients: [&dyn Fn(SocketAddr) -> Stream; 2] = [&silent_at_once, &silent_later];
    let start = Instant::now();
    let waiting = clients.map(|client| {
        let port = listener().local().port();
        let handshake_timeout = Duration::from_secs(20);
        let patient = Limits { handshake_timeout, ports: Some((port, port)), ..limits_with_key(7) };
        let (target, responding) = responder(patient);
        let stream = client(target);
        thread::sleep(Duration::from_millis(50));
        assert!(connect_once(SocketAddr::new(LOOPBACK, port), soon(), None).is_err(), "a port was opened");
        (stream, responding)
    });
    for (_stream, responding) in waiting {
        let error = responding.join().unwrap().0.unwrap_err();
        assert!(matches!(error.reason, Reason::TimedOut), "{error}");
        assert!((4900..12_000).contains(&start.elapsed().as_millis()), "dropped after {:?}", start.elapsed());
    }
}

/// A responder that sends our own proof back does not have the key.
#[test]
fn a_reflected_proof_is_refused() {
    let listener = listener();
    let target = listener.local();
    let reflecting = thread::spawn(move || {
        let stream = listener.accept_by(Some(soon())).unwrap();
        bytes(&stream, 12);
        for size in [136, 40] {
            stream.write_all_by(&bytes(&stream, size), soon()).unwrap();
        }
        stream
    });
    let mut lanes = FakeLanes::new(100);
    let error = initiate(target, &side(1, &Vec::new), &mut lanes, &limits_with_key(7)).unwrap_err();
    assert!(matches!(error.reason, Reason::Authentication(AuthError::WrongKey)), "{error}");
    reflecting.join().unwrap();
}

/// A handle that was changed on the wire is refused.
#[test]
fn a_changed_handle_is_refused() {
    let listener = listener();
    let target = listener.local();
    let changing = thread::spawn(move || {
        let stream = listener.accept_by(Some(soon())).unwrap();
        bytes(&stream, 12);
        let nonces = Nonces { initiator: blank_from(&stream), responder: [3; 16] };
        stream.write_all_by(&blank_frame([3; 16]), soon()).unwrap();
        let proof = bytes(&stream, 40)[8..].try_into().unwrap();
        let (session, proof) = Responder::new(&key(7), Purpose::CONTROL, nonces).verify(&proof).unwrap();
        let mut handle = Handle { address: target, features: Some(CLAIM) }.encode();
        let seal = session.seal("handle", &handle);
        handle[3] ^= 1;
        let sealed = frame(Tag::SealedHandle, &[&seal[..], &handle].concat());
        stream.write_all_by(&[frame(Tag::Proof, &proof), sealed].concat(), soon()).unwrap();
        stream
    });
    let mut lanes = FakeLanes::new(100);
    let error = initiate(target, &side(1, &Vec::new), &mut lanes, &limits_with_key(7)).unwrap_err();
    assert!(matches!(error.reason, Reason::Authentication(AuthError::Changed)), "{error}");
    changing.join().unwrap();
}

#[test]
fn raw_connections_refuse_when_a_key_is_set() {
    let handle = raw_listener(&limits()).unwrap().handle();
    let error = initiate_raw(&handle, &mut FakeLanes::new(100), &limits_with_key(7)).unwrap_err();
    assert_eq!(error.step, Step::Authentication);
    assert_eq!(raw_listener(&limits_with_key(7)).unwrap_err().step, Step::Authentication);
}
