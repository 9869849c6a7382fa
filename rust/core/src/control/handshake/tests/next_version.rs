//! FlagCX's next version, scripted byte for byte: a hello each way, then as the original.

use super::original::{MAGIC, answer_handle, bytes, check, frame, frame_of, handle, respond_on, send};
use super::*;
use crate::control::socket::connect;

const HELLO: [u8; 24] = [
    0x31, 0x50, 0x58, 0x46, 16, 0, 0, 0, // tag, size
    0x31, 0x50, 0x58, 0x46, 3, 0, 1, 0, 1, 0, 0, 0, 16, 0, 0, 0,
];

/// A bootstrap socket on which the hello was sent, with one byte of it changed.
fn open_with(target: SocketAddr, byte: usize, value: u8) -> Stream {
    let bootstrap = connect(target, soon(), None).unwrap();
    let mut hello = HELLO;
    hello[byte] = value;
    send(&bootstrap, &[&MAGIC, &[1, 0, 0, 0], &hello]);
    bootstrap
}

/// Everything that comes until the socket is closed.
fn rest(stream: &Stream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while stream.read_exact_by(&mut byte, soon()).is_ok() {
        bytes.push(byte[0]);
    }
    bytes
}

#[test]
fn its_initiator_is_answered() {
    for limits in [limits(), Limits { allow_original: true, ..limits_with_key(7) }] {
        let (target, responding) = responder(limits);
        let bootstrap = open_with(target, 0, HELLO[0]);
        assert_eq!(bytes(&bootstrap, 24), HELLO);
        send(&bootstrap, &[&frame(4, &handle(1))]);
        answer_handle(&bootstrap);
        let (peer, lanes) = responding.join().unwrap();
        check(&peer.unwrap(), &lanes);
    }
}

#[test]
fn another_hello_is_answered_with_ours_and_refused() {
    for (byte, value, named) in [
        (12, 5, "version 5 of implementation 1"),
        (14, 2, "implementation 2 (shared)"),
        (16, 2, "transport 2 (BAREX)"),
        (18, 1, "reserved field 1"),
        (20, 17, "size 17"),
    ] {
        let (target, responding) = responder(limits());
        let bootstrap = open_with(target, byte, value);
        assert_eq!(rest(&bootstrap), HELLO, "{named}");
        let error = responding.join().unwrap().0.unwrap_err();
        assert_eq!(error.step, Step::Hello);
        assert!(error.to_string().contains(named), "{error}");
        assert!(error.to_string().contains("this engine has version 3 of implementation 1"), "{error}");
    }
}

#[test]
fn what_is_no_hello_is_not_answered() {
    // A wrong magic, frames that are too short, too long and negative, and a hello in place of the handle.
    for (byte, value) in [(8, 0x32), (4, 15), (4, 17), (7, 0xff)] {
        let (target, responding) = responder(limits());
        let bootstrap = open_with(target, byte, value);
        assert_eq!(rest(&bootstrap), [0_u8; 0], "byte {byte}");
        let error = responding.join().unwrap().0.unwrap_err();
        assert!(matches!((error.step, &error.reason), (Step::Hello, Reason::Wire(_))), "{error}");
    }
    let (target, responding) = responder(limits());
    let bootstrap = open_with(target, 0, HELLO[0]);
    assert_eq!(bytes(&bootstrap, 24), HELLO);
    send(&bootstrap, &[&HELLO]);
    assert_eq!(rest(&bootstrap), [0_u8; 0]);
    let error = responding.join().unwrap().0.unwrap_err();
    assert!(error.step == Step::Handles && error.to_string().contains("expected 4 (Handle)"), "{error}");
}

#[test]
fn silence_after_a_hello_ends_at_the_deadline() {
    let begin: [&[u8]; 3] = [&HELLO[..8], &HELLO[..20], &HELLO];
    for part in begin {
        let short = Limits { handshake_timeout: Duration::from_millis(150), ..limits() };
        let (target, responding) = responder(short);
        let start = Instant::now();
        let bootstrap = connect(target, soon(), None).unwrap();
        send(&bootstrap, &[&MAGIC, &[1, 0, 0, 0], part]);
        let error = responding.join().unwrap().0.unwrap_err();
        assert!(matches!(error.reason, Reason::TimedOut) && !error.is_stray(), "{error}");
        assert!(start.elapsed() < Duration::from_secs(2));
    }
}

#[test]
fn with_a_key_a_hello_gets_no_byte() {
    let (target, responding) = responder(limits_with_key(7));
    assert_eq!(rest(&open_with(target, 0, HELLO[0])), [0_u8; 0]);
    let error = responding.join().unwrap().0.unwrap_err();
    assert!(error.to_string().contains("FLAGCX_P2P_AUTH_ALLOW_ORIGINAL=1"), "{error}");
}

/// Accepts a bootstrap socket and closes it at its first frame, like an engine without that tag; returns the tag.
fn refuse_first_frame(listener: &Listener) -> Vec<u8> {
    let bootstrap = listener.accept_by(Some(soon())).unwrap();
    assert_eq!(bytes(&bootstrap, 12), [&MAGIC[..], &[1, 0, 0, 0]].concat());
    bytes(&bootstrap, 8)[..4].to_vec()
}

/// Takes a bootstrap socket that begins with a hello, and answers it.
fn take_hello(listener: &Listener) -> Stream {
    let bootstrap = listener.accept_by(Some(soon())).unwrap();
    assert_eq!(bytes(&bootstrap, 36), [&MAGIC[..], &[1, 0, 0, 0], &HELLO].concat());
    send(&bootstrap, &[&HELLO]);
    bootstrap
}

/// Connects with the recorded openings, within two seconds in all.
fn dial(target: SocketAddr, limits: &Limits) -> Outcome {
    let mut lanes = FakeLanes::new(100);
    (initiate(target, &side(1, &Vec::new), &mut lanes, limits), lanes)
}

#[test]
fn its_responder_is_tried_again_with_a_hello_and_remembered() {
    let control = listener();
    let target = control.local();
    let scripted = thread::spawn(move || {
        assert_eq!(refuse_first_frame(&control), [4, 0, 0, 0]);
        respond_on(&take_hello(&control));
        // The next connection begins with what worked.
        respond_on(&take_hello(&control));
        // Today's original now listens there: a hello is refused, and the handle after it is not.
        assert_eq!(refuse_first_frame(&control), HELLO[..4]);
        for _ in 0..2 {
            let bootstrap = control.accept_by(Some(soon())).unwrap();
            bytes(&bootstrap, 12);
            respond_on(&bootstrap);
        }
    });
    let limits = limits();
    for _ in 0..4 {
        let (peer, lanes) = dial(target, &limits);
        check(&peer.unwrap(), &lanes);
    }
    scripted.join().unwrap();
}

#[test]
fn a_responder_of_another_version_is_named() {
    for (byte, value, named) in [(12, 5, "version 5"), (16, 2, "BAREX"), (8, 0, "magic")] {
        let control = listener();
        let target = control.local();
        let scripted = thread::spawn(move || {
            refuse_first_frame(&control);
            let bootstrap = control.accept_by(Some(soon())).unwrap();
            bytes(&bootstrap, 36);
            let mut hello = HELLO;
            hello[byte] = value;
            send(&bootstrap, &[&hello]);
            assert_eq!(rest(&bootstrap), [0_u8; 0]);
        });
        let error = dial(target, &limits()).0.unwrap_err();
        assert!(error.step == Step::Hello && error.to_string().contains(named), "{error}");
        scripted.join().unwrap();
    }
}

#[test]
fn a_responder_that_takes_neither_opening_is_tried_twice() {
    let control = listener();
    let target = control.local();
    let scripted = thread::spawn(move || {
        assert_eq!(refuse_first_frame(&control), [4, 0, 0, 0]);
        assert_eq!(refuse_first_frame(&control), HELLO[..4]);
        control
    });
    let error = dial(target, &limits()).0.unwrap_err();
    assert!(matches!((error.step, &error.reason), (Step::Handles, Reason::Unanswered)), "{error}");
    assert_eq!(scripted.join().unwrap().try_accept().unwrap().map(|stream| stream.peer()), None);
}

/// The second attempt is part of the first one's time.
#[test]
fn both_openings_share_one_deadline() {
    let control = listener();
    let target = control.local();
    let start = Instant::now();
    let scripted = thread::spawn(move || {
        refuse_first_frame(&control);
        let silent = control.accept_by(Some(soon())).unwrap();
        bytes(&silent, 36);
        rest(&silent)
    });
    let short = Limits { handshake_timeout: Duration::from_millis(300), ..limits() };
    let error = dial(target, &short).0.unwrap_err();
    assert!(matches!((error.step, &error.reason), (Step::Hello, Reason::TimedOut)), "{error}");
    assert!((300..1500).contains(&start.elapsed().as_millis()));
    assert_eq!(scripted.join().unwrap(), [0_u8; 0]);
}

#[test]
fn a_silent_responder_and_one_that_answers_are_not_tried_again() {
    let control = listener();
    let target = control.local();
    let scripted = thread::spawn(move || {
        let silent = control.accept_by(Some(soon())).unwrap();
        let answers = control.accept_by(Some(soon())).unwrap();
        bytes(&answers, 12 + 136);
        send(&answers, &[&frame_of(4, 128)]);
        drop((answers, silent));
        control
    });
    let short = Limits { handshake_timeout: Duration::from_millis(150), ..limits() };
    let error = dial(target, &short).0.unwrap_err();
    assert!(matches!(error.reason, Reason::TimedOut), "{error}");
    let error = dial(target, &limits()).0.unwrap_err();
    assert!(matches!((error.step, &error.reason), (Step::Handles, Reason::Closed)), "{error}");
    assert_eq!(scripted.join().unwrap().try_accept().unwrap().map(|stream| stream.peer()), None);
}

#[test]
fn with_a_key_no_hello_is_sent() {
    for lenient in [false, true] {
        let control = listener();
        let target = control.local();
        let scripted = thread::spawn(move || {
            assert_eq!(refuse_first_frame(&control), [4, 0, 0, 0]);
            control
        });
        let limits = Limits { allow_original: lenient, ..limits_with_key(7) };
        // Not even to a peer that took one before the key was set.
        limits.openings.record(target, opening::Opening::Hello);
        assert!(matches!(dial(target, &limits).0.unwrap_err().reason, Reason::Closed));
        assert_eq!(scripted.join().unwrap().try_accept().unwrap().map(|stream| stream.peer()), None);
    }
}

/// The first frame between engines of this kind is unchanged.
#[test]
fn between_engines_of_this_kind_nothing_changes() {
    let ((peer, _), _) = shake((FakeLanes::new(100), limits()), (FakeLanes::new(200), limits()));
    assert!(peer.unwrap().capabilities.ours);
    let control = listener();
    let target = control.local();
    let scripted = thread::spawn(move || refuse_first_frame(&control));
    drop(dial(target, &limits()));
    assert_eq!(scripted.join().unwrap(), [4, 0, 0, 0]);
}
