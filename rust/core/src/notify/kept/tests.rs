use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc;

use super::*;
use crate::control::{Abort, Listener, connect};
use crate::events::{EventLoop, Task};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// A sending end, and the peer's end of its socket.
fn pair() -> (Kept, Stream) {
    let listener = Listener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST), None, &Abort::new().unwrap()).unwrap();
    let client = connect(listener.local(), soon(), None).unwrap();
    (Kept::new(listener.accept_by(Some(soon())).unwrap()), client)
}

/// One look reads a few buffers of what a peer sends, however much there is, and keeps less than a number of it.
#[test]
fn a_peer_that_answers_without_end_has_its_share_of_a_look() {
    let (kept, peer) = pair();
    while peer.try_write(&[0; 4096]).unwrap().is_some() {}
    assert!(peer.try_write(&[0; 4096]).unwrap().is_none(), "the socket is full");
    let left = || {
        let mut state = lock(&kept.state);
        state.read();
        assert!(state.answer.len() < COUNT_SIZE, "{} bytes", state.answer.len());
        state.stream.as_ref().is_some_and(|stream| stream.has_unread())
    };
    assert!(left(), "there is more than one look takes");
    let deadline = soon();
    while left() {
        assert!(Instant::now() < deadline);
    }
}

/// Sends so many that they are not all in the buffers of the peer.
fn send_many(kept: &Kept) {
    for number in 0..1000_u64 {
        kept.write(&[&number.to_le_bytes(), &[7; 504]], soon()).unwrap();
    }
}

/// Reads them slowly, and answers meanwhile.
fn read_many(peer: &Stream) {
    let mut message = [0; 512];
    for number in 0..1000_u64 {
        if number % 10 == 0 {
            std::thread::sleep(Duration::from_micros(200));
            peer.write_all_by(&number.to_le_bytes(), soon()).unwrap();
        }
        peer.read_exact_by(&mut message, soon()).unwrap();
        assert_eq!(message[..8], number.to_le_bytes());
    }
}

/// A peer that begins to read only after the end has been waited for.
#[test]
fn what_is_read_later_arrives_too() {
    let (kept, peer) = pair();
    send_many(&kept);
    let lingering = kept.end(Instant::now()).unwrap().unwrap();
    drop(kept);
    let events = EventLoop::acquire().unwrap();
    let (task, lost) = close(&events, lingering, LINGER);
    read_many(&peer);
    assert_eq!(peer.read_exact_by(&mut [0], soon()).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    drop(peer);
    let deadline = soon();
    while !task.is_ended() {
        assert!(Instant::now() < deadline, "the socket is closed once all is read");
        std::thread::yield_now();
    }
    assert_eq!(lost.recv(), Ok(0));
}

/// Closes it later. What that returned is received.
fn close(events: &EventLoop, lingering: Lingering, limit: Duration) -> (Task, mpsc::Receiver<usize>) {
    let (sender, lost) = mpsc::channel();
    let task = events.spawn(move |handle| {
        let handle = handle.clone();
        async move { sender.send(lingering.close(limit, handle).await).unwrap() }
    });
    (task, lost)
}

/// A sending end of which the peer has read and counted two messages of five; it ends, and is to be closed later.
fn ended_with_unread() -> (Lingering, Stream) {
    let (kept, peer) = pair();
    (0..5).for_each(|_| kept.write(&[&[7; 512]], soon()).unwrap());
    peer.read_exact_by(&mut [0; 1024], soon()).unwrap();
    peer.write_all_by(&2_u64.to_le_bytes(), soon()).unwrap();
    (kept.end(Instant::now()).unwrap().unwrap(), peer)
}

#[test]
fn what_a_peer_leaves_unread_is_counted() {
    let events = EventLoop::acquire().unwrap();
    let (lingering, peer) = ended_with_unread();
    let (_task, lost) = close(&events, lingering, LINGER);
    drop(peer);
    assert_eq!(lost.recv_timeout(LINGER / 2), Ok(3), "its end is a reset");
}

#[test]
fn what_a_peer_that_is_silent_has_not_counted_is_counted() {
    let events = EventLoop::acquire().unwrap();
    let (lingering, _peer) = ended_with_unread();
    let (_task, lost) = close(&events, lingering, Duration::from_millis(50));
    assert_eq!(lost.recv_timeout(LINGER / 2), Ok(3), "it is not waited for longer");
}

#[test]
fn a_peer_that_is_reset_while_its_end_is_waited_for_is_no_peer_that_has_read() {
    let (kept, peer) = pair();
    (0..5).for_each(|_| kept.write(&[&[7; 512]], soon()).unwrap());
    let dropping = std::thread::spawn(move || {
        peer.read_exact_by(&mut [0; 512], soon()).unwrap();
        drop(peer);
    });
    assert_eq!(kept.end(soon()).unwrap_err(), 5);
    dropping.join().unwrap();
}

/// What was sent reaches a peer that reads it late and answers meanwhile, although this end has ended.
#[test]
fn what_was_sent_before_the_end_arrives() {
    let (kept, peer) = pair();
    send_many(&kept);
    let reading = std::thread::spawn(move || read_many(&peer));
    assert!(kept.end(soon()).unwrap().is_none());
    drop(kept);
    reading.join().unwrap();
}

#[test]
fn without_a_socket_the_number_of_lost_messages_is_known() {
    let (kept, _peer) = pair();
    kept.leave();
    for _ in 0..3 {
        kept.write(&[b"message"], soon()).unwrap();
    }
    assert!(kept.needs_socket() && kept.keeps_some());
    assert_eq!(kept.give_up("it was given up"), 3);
    assert!(!kept.needs_socket() && !kept.keeps_some() && kept.is_ready());
    assert_eq!(kept.write(&[b"message"], soon()).unwrap_err(), "it was given up");
    assert_eq!(kept.end(soon()).unwrap_err(), 3);
}
