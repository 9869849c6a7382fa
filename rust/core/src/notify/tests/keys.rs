//! Senders and receivers with a key.

use super::*;

fn key(byte: u8) -> AuthKey {
    AuthKey::new(&[byte; 32])
}

pub(super) fn policy_with_key(allow_original: bool) -> SenderPolicy {
    SenderPolicy { key: Some(key(7)), allow_original, max_bytes: 1000 }
}

fn with_key(max_peers: usize) -> ReceiverOptions {
    ReceiverOptions { policy: policy_with_key(false), max_peers, ..options() }
}

fn bytes<const N: usize>(stream: &Stream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact_by(&mut bytes, soon()).unwrap();
    bytes
}

/// Says hello, and reads the receiver's 16 bytes.
fn hello(receiver: &Receiver) -> (Stream, Nonces) {
    let (stream, initiator) = (with_preamble(receiver), [5; 16]);
    stream.write_all_by(&[&Header::Hello.encode()[..], &initiator].concat(), soon()).unwrap();
    let nonces = Nonces { initiator, responder: bytes(&stream) };
    (stream, nonces)
}

/// Performs the exchange of a sender with the key; returns the socket and the receiver's proof.
fn proven(receiver: &Receiver) -> (Stream, Initiator, Proof) {
    let (stream, nonces) = hello(receiver);
    let (initiator, proof) = Initiator::prove(&key(7), Purpose::NOTIFICATIONS, nonces);
    stream.write_all_by(&proof, soon()).unwrap();
    let proof = bytes(&stream);
    (stream, initiator, proof)
}

/// Nothing more comes, and the connection is closed. That it is so with bytes that were not read makes it a reset.
fn assert_closed(stream: &Stream) {
    let end = stream.read_exact_by(&mut [0], soon()).unwrap_err();
    assert!(matches!(end.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{end}");
}

#[test]
fn with_a_key_both_sides_must_prove_it() {
    let receiver = Receiver::open(with_key(8)).unwrap();
    let (stream, initiator, proof) = proven(&receiver);
    initiator.verify(&proof).unwrap();
    Sender::new(stream, 1000).send(&message(1), soon()).unwrap();
    assert_eq!(wait_for(1, || receiver.take()), [message(1)]);
    let original = with_preamble(&receiver);
    let _ = Sender::new(original, 0).send(&message(2), soon());
    thread::sleep(Duration::from_millis(20));
    assert!(receiver.take().is_empty());
}

#[test]
fn a_sender_without_the_key_gets_a_random_number_and_nothing_else() {
    let receiver = Receiver::open(with_key(8)).unwrap();
    let (recorded, nonces) = hello(&receiver);
    let (_, old) = Initiator::prove(&key(7), Purpose::NOTIFICATIONS, nonces);
    drop(recorded);
    let mut numbers = vec![nonces.responder];
    let (_, elsewhere) = Initiator::prove(&key(7), Purpose::CONTROL, nonces);
    for answer in [&old[..], &elsewhere, &[0; 32], b"GET / HTTP/1.1\r\nHost: localhost\r\n"] {
        let (stream, nonces) = hello(&receiver);
        numbers.push(nonces.responder);
        stream.write_all_by(answer, soon()).unwrap();
        assert_closed(&stream);
    }
    let (stream, nonces) = hello(&receiver);
    let (_, guess) = Initiator::prove(&key(8), Purpose::NOTIFICATIONS, nonces);
    stream.write_all_by(&guess, soon()).unwrap();
    assert_closed(&stream);
    // Not even a random number for a message other than a hello.
    for garbage in [&[0x41; 520][..], &Header::Message.encode(), &Header::Large(1).encode()] {
        let stream = with_preamble(&receiver);
        stream.write_all_by(garbage, soon()).unwrap();
        assert_closed(&stream);
    }
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 5, "a random number was used twice");
    assert!(receiver.take().is_empty());
}

/// However many others there are: the limit is for unauthenticated senders.
#[test]
fn a_sender_with_the_key_always_has_a_place() {
    let receiver = Receiver::open(with_key(1)).unwrap();
    let senders: Vec<_> = (0..10).map(|_| Sender::new(proven(&receiver).0, 1000)).collect();
    for sender in &senders {
        sender.send(&message(1), soon()).unwrap();
    }
    wait_for(10, || receiver.take());
}

#[test]
fn original_engines_may_send_where_they_are_let_in() {
    let receiver = Receiver::open(ReceiverOptions { policy: policy_with_key(true), ..options() }).unwrap();
    sender(&receiver).send(&message(1), soon()).unwrap();
    assert_eq!(wait_for(1, || receiver.take()), [message(1)]);
}
