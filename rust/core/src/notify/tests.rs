//! Receivers and senders over loopback. None of them fetches process-wide, which would take other tests' messages.

mod keys;
mod sender_limit;
mod unsent;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use socket2::{Domain, Socket, Type};

use keys::policy_with_key;

use super::*;
use crate::auth::{AuthKey, Initiator, Nonces, Proof, Purpose};
use crate::control::wire::SocketKind;
use crate::control::wire::notification::{Header, encode_owner};
use crate::control::{AllowList, ConnectedHosts, Stream, connect};
use crate::process::ProcessIdentity;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn options() -> ReceiverOptions {
    ReceiverOptions {
        bind: LOOPBACK,
        interfaces: Vec::new(),
        ports: None,
        allow: AllowList::default(),
        policy: SenderPolicy { key: None, allow_original: false, max_bytes: 1 << 20 },
        max_peers: 64,
        queue: 1000,
        hello_timeout: Duration::from_secs(5),
        keepalive: None,
        connected_hosts: ConnectedHosts::default(),
        incarnation: 0,
    }
}

fn raw(receiver: &Receiver) -> Stream {
    connect(SocketAddr::new(LOOPBACK, receiver.port()), soon(), None).unwrap()
}

fn with_preamble(receiver: &Receiver) -> Stream {
    let stream = raw(receiver);
    stream.write_all_by(&SocketKind::Notifications.encode(), soon()).unwrap();
    stream
}

fn sender(receiver: &Receiver) -> Sender {
    Sender::new(with_preamble(receiver), 1 << 20)
}

fn message(number: u32) -> Message {
    Message::new(b"number", number.to_string().as_bytes())
}

fn wait_for<T>(count: usize, mut take: impl FnMut() -> Vec<T>) -> Vec<T> {
    let (mut taken, deadline) = (Vec::new(), soon());
    while taken.len() < count && Instant::now() < deadline {
        taken.extend(take());
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(taken.len(), count);
    taken
}

fn closed_by_peer(stream: &Stream) -> bool {
    let deadline = soon();
    while !stream.is_closed() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    stream.is_closed()
}

#[test]
fn messages_arrive_whole_and_in_order() {
    let receiver = Receiver::open(options()).unwrap();
    let sender = sender(&receiver);
    let full = Message { name: [0xff; 256], text: [0; 256] };
    assert_eq!(sender.send(&full, soon()).unwrap(), 512);
    for number in 0..300 {
        sender.send(&message(number), soon()).unwrap();
    }
    let taken = wait_for(301, || receiver.take());
    assert_eq!(taken[0], full);
    assert_eq!(taken[1..], (0..300).map(message).collect::<Vec<_>>());
    assert!(receiver.take().is_empty());
}

#[test]
fn the_bytes_are_those_of_the_original_engine() {
    let receiver = Receiver::open(options()).unwrap();
    let stream = raw(&receiver);
    let mut bytes = vec![0x6c, 0x9d, 0x4b, 0xfc, 0xf2, 0xb9, 0x4a, 0x56, 2, 0, 0, 0];
    bytes.extend([0xad, 0xde, 0xad, 0xde, 0, 0, 0, 0]);
    bytes.extend([b'n'; 256]);
    bytes.extend([b't'; 256]);
    for part in bytes.chunks(100) {
        stream.write_all_by(part, soon()).unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    // Closed at once: the last message must not be lost with the socket.
    drop(stream);
    assert_eq!(wait_for(1, || receiver.take()), [Message { name: [b'n'; 256], text: [b't'; 256] }]);
}

#[test]
fn each_engine_has_its_own_messages() {
    let receivers: Vec<_> = (0..3).map(|_| Receiver::open(options()).unwrap()).collect();
    for (number, receiver) in receivers.iter().enumerate() {
        sender(receiver).send(&message(number as u32), soon()).unwrap();
    }
    for (number, receiver) in receivers.iter().enumerate() {
        assert_eq!(wait_for(1, || receiver.take()), [message(number as u32)]);
    }
}

#[test]
fn malformed_clients_disturb_no_peer() {
    let options = ReceiverOptions { hello_timeout: Duration::from_secs(1), ..options() };
    let receiver = Receiver::open(options).unwrap();
    let sender = sender(&receiver);
    sender.send(&message(1), soon()).unwrap();
    let silent: Vec<_> = (0..100).map(|_| raw(&receiver)).collect();
    let half = raw(&receiver);
    half.write_all_by(&SocketKind::Notifications.encode()[..7], soon()).unwrap();
    let garbage = raw(&receiver);
    garbage.write_all_by(&[0x41; 4096], soon()).unwrap();
    let wrong_magic = with_preamble(&receiver);
    wrong_magic.write_all_by(&[0x42; 520], soon()).unwrap();
    let other_kind = raw(&receiver);
    other_kind.write_all_by(&SocketKind::Bootstrap.encode(), soon()).unwrap();
    sender.send(&message(2), soon()).unwrap();
    assert_eq!(wait_for(2, || receiver.take()), [message(1), message(2)]);
    for client in [&half, &garbage, &wrong_magic, &other_kind, &silent[0], &silent[99]] {
        assert!(closed_by_peer(client));
    }
    sender.send(&message(3), soon()).unwrap();
    wait_for(1, || receiver.take());
}

#[test]
fn a_full_queue_holds_senders_back_and_loses_nothing() {
    const COUNT: u32 = 5_000;
    let receiver = Receiver::open(ReceiverOptions { queue: 7, ..options() }).unwrap();
    let sending = sender(&receiver);
    let thread = thread::spawn(move || {
        for number in 0..COUNT {
            sending.send(&message(number), Instant::now() + Duration::from_secs(20)).unwrap();
        }
    });
    let mut next = 0;
    while next < COUNT {
        let taken = receiver.take();
        assert!(taken.len() <= 7);
        for one in taken {
            assert_eq!(one, message(next));
            next += 1;
        }
    }
    thread.join().unwrap();
}

#[test]
fn without_a_fetch_a_send_ends_at_its_deadline_and_other_peers_go_on() {
    let full = Receiver::open(ReceiverOptions { queue: 1, ..options() }).unwrap();
    let other = Receiver::open(options()).unwrap();
    let (sender_to_full, sender_to_other) = (sender(&full), sender(&other));
    let deadline = Instant::now() + Duration::from_millis(200);
    let error = (0..1_000_000)
        .find_map(|number| sender_to_full.send(&message(number), deadline).err())
        .expect("a queue of one message takes a million");
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
    sender_to_other.send(&message(1), soon()).unwrap();
    wait_for(1, || other.take());
    // Half a message may have been sent, so the channel stays closed.
    assert!(sender_to_full.send(&message(0), soon()).is_err());
    drop(full);
}

#[test]
fn a_message_held_back_survives_its_senders_end() {
    let receiver = Receiver::open(ReceiverOptions { queue: 2, ..options() }).unwrap();
    let sending = sender(&receiver);
    for number in 0..50 {
        sending.send(&message(number), soon()).unwrap();
    }
    drop(sending);
    thread::sleep(Duration::from_millis(20));
    let taken = wait_for(50, || receiver.take());
    assert_eq!(taken, (0..50).map(message).collect::<Vec<_>>());
}

#[test]
fn many_threads_may_use_one_sender() {
    let receiver = Receiver::open(ReceiverOptions { queue: 100_000, ..options() }).unwrap();
    let sender = Arc::new(sender(&receiver));
    let threads: Vec<_> = (0..4_u32)
        .map(|thread| {
            let sender = sender.clone();
            thread::spawn(move || {
                for number in 0..200 {
                    sender.send(&message(thread * 1000 + number), soon()).unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut taken: Vec<u32> = wait_for(800, || receiver.take())
        .iter()
        .map(|message| shown(&message.text).parse().unwrap())
        .collect();
    taken.sort_unstable();
    let expected: Vec<u32> =
        (0..4).flat_map(|thread| (0..200).map(move |number| thread * 1000 + number)).collect();
    assert_eq!(taken, expected);
}

fn exact(name: &[u8], content: &[u8]) -> Notification {
    Notification::Exact(Box::new(LargeMessage::new(name, content.to_vec())))
}

fn fixed(number: u32) -> Notification {
    Notification::Fixed(Box::new(message(number)))
}

/// Of every size, zeros at the end among them, and in one order with those of 512 bytes.
#[test]
fn contents_arrive_as_they_were_sent_and_in_order() {
    let receiver = Receiver::open(ReceiverOptions { incarnation: 91, ..options() }).unwrap();
    let contents = [vec![], vec![0], b"end\0\0".to_vec(), vec![0; 256], vec![1; 257], vec![7; 1 << 20]];
    for sending in [sender(&receiver), Sender::same_process(91, 1 << 20).unwrap()] {
        let mut expected = Vec::new();
        for (number, content) in contents.iter().enumerate() {
            assert_eq!(sending.send_bytes(b"name", content, soon()).unwrap(), content.len());
            sending.send(&message(number as u32), soon()).unwrap();
            expected.extend([exact(b"name", content), fixed(number as u32)]);
        }
        assert!(wait_for(expected.len(), || receiver.take_all()) == expected);
    }
}

#[test]
fn sizes_are_checked_before_anything_is_sent() {
    let receiver = Receiver::open(options()).unwrap();
    let sending = sender(&receiver);
    let error = sending.send_bytes(b"", &vec![0; (1 << 20) + 1], soon()).unwrap_err();
    assert!(error.to_string().contains("at most 1048576"), "{error}");
    let error = sending.send_bytes(&[b'n'; 257], b"", soon()).unwrap_err();
    assert!(error.to_string().contains("has 257 bytes, and may have at most 256"), "{error}");
    sending.send_bytes(&[b'n'; 256], b"", soon()).unwrap();
    assert_eq!(wait_for(1, || receiver.take_all()), [exact(&[b'n'; 256], b"")]);

    let to_original = Sender::new(with_preamble(&receiver), 0);
    assert!(matches!(to_original.send_bytes(b"", &[0; 257], soon()), Err(NotifyError::OriginalPeer { .. })));
    to_original.send_bytes(b"number", b"5", soon()).unwrap();
    assert_eq!(wait_for(1, || receiver.take()), [message(5)]);

    let liar = with_preamble(&receiver);
    liar.write_all_by(&Header::Large(u32::MAX).encode(), soon()).unwrap();
    assert!(closed_by_peer(&liar));
}

/// Messages of any size that are not fetched hold back their sender, and no other one.
#[test]
fn messages_of_any_size_have_a_room_of_their_own() {
    let policy = SenderPolicy { max_bytes: 1000, ..SenderPolicy::default() };
    let receiver = Receiver::open(ReceiverOptions { policy, ..options() }).unwrap();
    let (large, small) = (sender(&receiver), sender(&receiver));
    assert!(receiver.take_all().is_empty());
    for _ in 0..20 {
        large.send_bytes(b"", &[1; 1000], soon()).unwrap();
    }
    thread::sleep(Duration::from_millis(20));
    small.send(&message(1), soon()).unwrap();
    wait_for(1, || receiver.take());
    assert_eq!(receiver.take_all().len(), 4);
    wait_for(16, || receiver.take_all());
}

/// A program that fetches only those of 512 bytes gets all of these, whatever else their sender sends.
#[test]
fn where_only_fixed_messages_are_fetched_others_hold_nothing_back() {
    let policy = SenderPolicy { max_bytes: 1000, ..SenderPolicy::default() };
    let receiver = Receiver::open(ReceiverOptions { policy, ..options() }).unwrap();
    let sending = sender(&receiver);
    for number in 0..50 {
        sending.send_bytes(b"", &[number as u8; 1000], soon()).unwrap();
        sending.send(&message(number), soon()).unwrap();
    }
    assert_eq!(wait_for(50, || receiver.take()), (0..50).map(message).collect::<Vec<_>>());
    let kept: Vec<_> = (46..50).map(|number| exact(b"", &[number; 1000])).collect();
    assert_eq!(receiver.take_all(), kept);
}

#[test]
fn threads_that_fetch_at_once_get_each_message_once() {
    const COUNT: usize = 2000;
    let receiver = Receiver::open(ReceiverOptions { queue: 10_000, ..options() }).unwrap();
    let sending = sender(&receiver);
    let mut taken = thread::scope(|scope| {
        let taker = || {
            let (mut taken, deadline) = (Vec::new(), soon());
            while !taken.contains(&Vec::new()) && Instant::now() < deadline {
                let all = receiver.take_all();
                let ends = all.iter().filter(|one| one.content().is_empty()).count();
                taken.extend(all.into_iter().map(|one| one.content().to_vec()));
                // One end message for each thread; those that this one took for others are sent again.
                for _ in 1..ends {
                    sending.send_bytes(b"", b"", soon()).unwrap();
                }
            }
            taken
        };
        let takers: Vec<_> = (0..4).map(|_| scope.spawn(taker)).collect();
        for number in 0..COUNT {
            sending.send_bytes(b"", number.to_string().as_bytes(), soon()).unwrap();
        }
        for _ in 0..4 {
            sending.send_bytes(b"", b"", soon()).unwrap();
        }
        takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect::<Vec<_>>()
    });
    taken.retain(|content| !content.is_empty());
    taken.sort();
    let mut expected: Vec<_> = (0..COUNT).map(|number| number.to_string().into_bytes()).collect();
    expected.sort();
    assert!(taken == expected);
}

#[test]
fn engines_of_one_process_need_no_socket() {
    let receiver = Receiver::open(ReceiverOptions { incarnation: 77, queue: 2, ..options() }).unwrap();
    assert!(Sender::same_process(78, 0).is_none());
    let sender = Sender::same_process(77, 1000).unwrap();
    assert_eq!(sender.send(&message(1), soon()).unwrap(), 512);
    assert_eq!(sender.send_bytes(b"", &[1; 1000], soon()).unwrap(), 1000);
    sender.send(&message(2), soon()).unwrap();
    assert!(sender.send(&message(3), Instant::now() + Duration::from_millis(20)).is_err());
    assert_eq!(receiver.take(), [message(1), message(2)]);
    assert_eq!(receiver.take_all().len(), 1);
    let waiting = {
        sender.send(&message(4), soon()).unwrap();
        sender.send(&message(5), soon()).unwrap();
        thread::spawn(move || sender.send(&message(6), soon()).is_ok())
    };
    thread::sleep(Duration::from_millis(20));
    assert_eq!(wait_for(3, || receiver.take()), [message(4), message(5), message(6)]);
    assert!(waiting.join().unwrap());
}

#[test]
fn a_receiver_ends_promptly_with_peers_connected() {
    let receiver = Receiver::open(options()).unwrap();
    let (sending, silent) = (sender(&receiver), raw(&receiver));
    sending.send(&message(1), soon()).unwrap();
    wait_for(1, || receiver.take());
    let start = Instant::now();
    drop(receiver);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(closed_by_peer(&silent));
    assert!(matches!(sending.send(&message(2), soon()), Err(NotifyError::NoChannel)));
}

/// Once, before or between messages, and not before the key is proven.
#[test]
fn a_sender_may_say_to_which_process_it_belongs() {
    let identity = ProcessIdentity { pid: 7, fingerprint: 0x0102_0304_0506_0708 };
    let (owner, policy) = (encode_owner(identity), SenderPolicy::default());
    let mut decoder = Decoder::new([1; 16]);
    let preamble = SocketKind::Notifications.encode();
    assert_eq!(
        decoder.next(&preamble, &policy).unwrap(),
        Some((DecodedEvent::Admitted(None), preamble.len()))
    );
    for cut in 0..owner.len() {
        assert_eq!(decoder.next(&owner[..cut], &policy).unwrap(), None);
    }
    assert_eq!(decoder.next(&owner, &policy).unwrap(), Some((DecodedEvent::Owner(identity), owner.len())));
    assert!(decoder.next(&owner, &policy).is_err(), "a second one");

    let (mut keyed, policy) = (Decoder::new([1; 16]), policy_with_key(true));
    assert_eq!(keyed.next(&preamble, &policy).unwrap(), Some((DecodedEvent::Greeted, preamble.len())));
    assert!(keyed.next(&owner, &policy).is_err());
}

proptest! {
    /// The events do not depend on how the bytes are cut.
    #[test]
    fn cuts_do_not_matter(cuts in proptest::collection::vec(1usize..700, 1..20), key: bool) {
        let policy = if key { policy_with_key(true) } else { SenderPolicy { max_bytes: 1000, ..SenderPolicy::default() } };
        let mut bytes = SocketKind::Notifications.encode().to_vec();
        for number in 0..3_u8 {
            bytes.extend(Header::Message.encode());
            bytes.extend([number; 512]);
            if number == 1 {
                bytes.extend(Header::Large(3).encode());
                bytes.extend([9; 259]);
            }
        }
        let mut decoder = Decoder::new([1; 16]);
        let (mut events, mut buffer) = (Vec::new(), Vec::new());
        let mut rest = bytes.as_slice();
        for cut in cuts.iter().cycle() {
            let (part, tail) = rest.split_at((*cut).min(rest.len()));
            buffer.extend_from_slice(part);
            rest = tail;
            while let Some((event, size)) = decoder.next(&buffer, &policy).unwrap() {
                buffer.drain(..size);
                if !matches!(event, DecodedEvent::Greeted | DecodedEvent::Admitted(_)) {
                    events.push(event);
                }
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(events.len(), 4);
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(&events[0], &DecodedEvent::Message(Box::new(Message { name: [0; 256], text: [0; 256] })));
        prop_assert_eq!(&events[2], &DecodedEvent::Large(Box::new(LargeMessage { name: [9; 256], content: vec![9; 3] })));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, with_preamble: bool, hello: bool, key: bool) {
        let policy = if key { policy_with_key(true) } else { SenderPolicy { max_bytes: 1000, ..SenderPolicy::default() } };
        let mut stream = if with_preamble { SocketKind::Notifications.encode().to_vec() } else { Vec::new() };
        if hello {
            stream.extend(Header::Hello.encode());
        }
        stream.extend(bytes);
        let mut decoder = Decoder::new([1; 16]);
        let mut rest = stream.as_slice();
        while let Ok(Some((_, size))) = decoder.next(rest, &policy) {
            rest = &rest[size..];
        }
    }
}
