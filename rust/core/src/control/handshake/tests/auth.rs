//! Authentication.

use super::*;
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
        let features = peer.unwrap().features.unwrap();
        assert!(features.has(Features::AUTH | Features::CHANNEL));
        assert!(features.incarnation > 1000);
    }
}

#[test]
fn another_key_is_not() {
    let [initiator, responder] = shake_with(limits_with_key(7), limits_with_key(8));
    let error = initiator.unwrap_err();
    assert_eq!(error.step, Step::Authentication);
    assert!(error.to_string().contains("another one"), "{error}");
    assert!(responder.unwrap_err().to_string().contains("does not know our key"));
}

#[test]
fn a_missing_key_is_named_on_both_sides() {
    let [initiator, responder] = shake_with(limits(), limits_with_key(7));
    assert!(initiator.unwrap_err().to_string().contains("FLAGCX_P2P_AUTH_KEY_FILE"));
    assert!(responder.unwrap_err().to_string().contains("has no key"));
    let [initiator, responder] = shake_with(limits_with_key(7), limits());
    assert!(initiator.unwrap_err().to_string().contains("has no key"));
    assert!(responder.unwrap_err().to_string().contains("FLAGCX_P2P_AUTH_KEY_FILE"));
}

/// An initiator of our kind must prove the key even where original engines may enter without.
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

#[test]
fn an_original_engine_gets_nothing() {
    let (target, responding) = responder(limits_with_key(7));
    let stream = send_handle(target, None);
    let end = stream.read_exact_by(&mut [0], soon()).unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof);
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
    assert!(matches!(error.reason, Reason::Closed(_)), "{error}");
    assert!(start.elapsed() < Duration::from_secs(1), "the end of the bootstrap socket is noticed at once");
}

/// Who only claims to have a key learns a nonce, and neither an address nor an incarnation.
#[test]
fn a_liar_learns_nothing() {
    let (target, responding) = responder(limits_with_key(7));
    let stream = send_handle(target, Some(Features { bits: Features::AUTH, ..Features::default() }));
    let mut answer = [0; 136];
    stream.read_exact_by(&mut answer, soon()).unwrap();
    let Handle { address, features } = Handle::decode(&answer[8..]).unwrap();
    let features = features.unwrap();
    assert_eq!(address, "0.0.0.0:0".parse().unwrap());
    assert_ne!(features.nonce, [0; 16]);
    assert_eq!(features, Features { bits: Features::AUTH, nonce: features.nonce, ..Features::default() });

    let proof = FrameHeader { tag: Tag::Proof as i32, size: 160 }.encode();
    stream.write_all_by(&[&proof[..], &[0; 32], &answer[8..]].concat(), soon()).unwrap();
    let end = stream.read_exact_by(&mut [0], soon()).unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(responding.join().unwrap().0.unwrap_err().step, Step::Authentication);
}

/// Neither a place for as long as a handshake may take, nor a port.
#[test]
fn who_does_not_prove_the_key_is_dropped_soon_and_has_no_port_opened() {
    let claim = Features { bits: Features::AUTH, ..Features::default() };
    let silent_at_once = |target| {
        let stream = connect(target, soon(), None).unwrap();
        stream.write_all_by(&SocketKind::Bootstrap.encode(), soon()).unwrap();
        stream
    };
    let silent_later = |target| {
        let stream = send_handle(target, Some(claim));
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
        assert!((1900..5000).contains(&start.elapsed().as_millis()), "dropped after {:?}", start.elapsed());
    }
}

/// A responder that sends our own proof back does not know the key.
#[test]
fn a_reflected_proof_is_refused() {
    let listener = listener();
    let target = listener.local();
    let reflecting = thread::spawn(move || {
        let stream = listener.accept_by(Some(soon())).unwrap();
        let mut preamble = [0; 12];
        stream.read_exact_by(&mut preamble, soon()).unwrap();
        for size in [136, 168] {
            let mut frame = vec![0; size];
            stream.read_exact_by(&mut frame, soon()).unwrap();
            stream.write_all_by(&frame, soon()).unwrap();
        }
        stream
    });
    let mut lanes = FakeLanes::new(100);
    let error = initiate(target, &side(1, &Vec::new), &mut lanes, &limits_with_key(7)).unwrap_err();
    assert!(error.to_string().contains("does not know our key"), "{error}");
    reflecting.join().unwrap();
}

#[test]
fn raw_connections_refuse_when_a_key_is_set() {
    let handle = raw_listener(&limits()).unwrap().handle();
    let error = initiate_raw(&handle, &mut FakeLanes::new(100), &limits_with_key(7)).unwrap_err();
    assert_eq!(error.step, Step::Authentication);
    assert_eq!(raw_listener(&limits_with_key(7)).unwrap_err().step, Step::Authentication);
}
