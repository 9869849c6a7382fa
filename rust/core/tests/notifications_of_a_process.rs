//! The process-wide view over the notifications of all engines. One test only: it takes the messages of all engines.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up fails")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::config::Config;
use flagcx_p2p::internals::control::{connect, wire::SocketKind};
use flagcx_p2p::internals::notify::{Message, Receiver, ReceiverOptions, Sender, append, take_all};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn receiver(incarnation: u64) -> Receiver {
    let bind = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Receiver::open(ReceiverOptions::from_config(&Config::default(), bind, incarnation).unwrap()).unwrap()
}

fn sender(receiver: &Receiver) -> Sender {
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, receiver.port()));
    let stream = connect(target, soon(), None).unwrap();
    stream.write_all_by(&SocketKind::Notifications.encode(), soon()).unwrap();
    Sender::new(stream, 1 << 20)
}

fn message(number: u32) -> Message {
    Message::new(b"", number.to_string().as_bytes())
}

fn wait_for(count: usize) -> Vec<Message> {
    let (mut taken, deadline) = (Vec::new(), soon());
    while taken.len() < count && Instant::now() < deadline {
        taken.extend(take_all());
        thread::sleep(Duration::from_millis(1));
    }
    taken
}

#[test]
fn messages_of_all_engines_come_in_the_order_of_their_arrival() {
    assert!(take_all().is_empty());

    // In one process the order of sending is the order of arrival.
    let (first, second) = (receiver(1), receiver(2));
    let senders = [Sender::same_process(1, 0).unwrap(), Sender::same_process(2, 0).unwrap()];
    for number in 0..10 {
        senders[number % 2].send(&message(number as u32), soon()).unwrap();
    }
    assert!(append(&message(10)));
    assert_eq!(take_all(), (0..=10).map(message).collect::<Vec<_>>());

    // Over sockets, with one engine's messages seen before the other's are sent.
    let (to_first, to_second) = (sender(&first), sender(&second));
    to_first.send(&message(1), soon()).unwrap();
    to_second.send(&message(2), soon()).unwrap();
    let mut taken = wait_for(2);
    taken.sort_by_key(|message| message.text);
    assert_eq!(taken, [message(1), message(2)]);

    // What an engine has received of 512 bytes outlives it; the rest is freed with it.
    senders[0].send(&message(3), soon()).unwrap();
    Sender::same_process(1, 10).unwrap().send_bytes(b"", &[1; 10], soon()).unwrap();
    drop(first);
    senders[1].send(&message(4), soon()).unwrap();
    assert!(senders[0].send(&message(5), soon()).is_err(), "the engine is closed");
    assert_eq!(take_all(), [message(3), message(4)]);

    // Destroying one engine disturbs no other.
    to_second.send(&message(6), soon()).unwrap();
    assert_eq!(wait_for(1), [message(6)]);
}
