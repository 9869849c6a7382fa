use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::mpsc;

use super::super::super::decoder::SenderPolicy;
use super::super::super::queue::Limits;
use super::*;
use crate::control::wire::SocketKind;
use crate::control::wire::notification::{Header, MESSAGE_SIZE};
use crate::control::{Abort, AllowList, ConnectedHosts, connect};
use crate::events::EventLoop;

const LONG: Duration = Duration::from_secs(20);
const SENDERS: usize = 32;
/// Of each sender: less than one read takes.
const MESSAGES: usize = 60;

fn options() -> ReceiverOptions {
    ReceiverOptions {
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        interfaces: Vec::new(),
        ports: None,
        allow: AllowList::default(),
        policy: SenderPolicy { key: None, allow_original: false, max_bytes: 1 << 20 },
        max_peers: SENDERS,
        queue: 1 << 20,
        hello_timeout: LONG,
        keepalive: None,
        connected_hosts: ConnectedHosts::default(),
        incarnation: 0,
    }
}

#[test]
fn many_senders_at_once_let_others_have_their_turn() {
    let events = EventLoop::acquire().unwrap();
    let (report, reports) = mpsc::channel();
    let _task = events.spawn(move |handle| {
        let handle = handle.clone();
        async move {
            let (deadline, options) = (Instant::now() + LONG, options());
            let listener = Listener::bind(options.bind, None, &Abort::new().unwrap()).unwrap();
            let (local, room) = (listener.local(), Arc::new(Wakeup::default()));
            let limits = Limits { messages: options.queue, exact_bytes: 1 << 20 };
            let queue = Queue::open(0, limits, Arc::clone(&room));
            let mut reader = Reader::new(listener, options, Arc::clone(&queue), room).unwrap();
            let mut senders = Vec::new();
            for _ in 0..SENDERS {
                senders.push(connect(local, deadline, None).unwrap());
                reader.accept();
            }
            let message = [&Header::Message.encode()[..], &[b'x'; MESSAGE_SIZE - 8]].concat();
            let bytes = [&SocketKind::Notifications.encode()[..], &message.repeat(MESSAGES)].concat();
            for sender in &senders {
                assert_eq!(sender.try_write(&bytes).unwrap(), Some(bytes.len()));
            }
            // All of them are read in one turn of the task, which yields at each pause.
            let (mut pauses, mut turn) = (0, pin!(reader.turn(&handle)));
            poll_fn(|context| {
                let polled = turn.as_mut().poll(context);
                pauses += usize::from(polled.is_pending());
                polled
            })
            .await;
            let taken = queue.take().len();
            report.send((pauses, taken)).unwrap();
            queue.close();
        }
    });
    let (pauses, taken) = reports.recv_timeout(LONG).unwrap();
    let at_least = taken * MESSAGE_SIZE / TURN;
    assert!(taken > SENDERS * MESSAGES / 2, "{taken} messages");
    assert!(pauses + 1 >= at_least, "{pauses} pauses for {taken} messages");
}
