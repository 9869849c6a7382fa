//! Handshakes that the listener closes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;

/// A listener in front of a device's: it closes the first `closed` handshakes after the hello and forwards the next one. Answers
/// how many have come.
fn closing_front(to: u32, closed: usize) -> (u32, std::thread::JoinHandle<usize>) {
    let front = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = front.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        for count in 1.. {
            let (mut client, _) = front.accept().unwrap();
            let mut hello = [0; 32];
            client.read_exact(&mut hello).unwrap();
            if count > closed {
                let mut server = TcpStream::connect(("127.0.0.1", u16::try_from(to).unwrap())).unwrap();
                server.write_all(&hello).unwrap();
                let (mut back, mut client_end) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut back, &mut client_end));
                let _ = std::io::copy(&mut client, &mut server);
                return count;
            }
        }
        0
    });
    (u32::from(port), thread)
}

/// As one that has lost patience over a link that loses packets, or is short of places.
#[test]
fn a_listener_that_closes_handshakes_is_asked_again() {
    let (here, there) = (open(forced(PathKind::Tcp)), open(forced(PathKind::Tcp)));
    let ends = [here, there].map(|device| {
        let completions = Arc::clone(&device).create_completion_queue(16).unwrap();
        let queue_pair = Arc::clone(&device).create_queue_pair(&completions.handle(), &caps()).unwrap();
        (completions, queue_pair)
    });
    let [(_here, mut initiator), (_there, target)] = ends;
    let (port, front) = closing_front(target.address().lid, 2);
    initiator.connect(&QpAddress { lid: port, ..target.address() }, &peer::path()).unwrap();
    drop((initiator, target));
    assert_eq!(front.join().unwrap(), 3, "two were closed, and the third one was welcome");
}

#[test]
fn a_listener_that_closes_every_handshake_is_named_with_what_was_awaited() {
    let device = open(forced(PathKind::Tcp));
    let completions = Arc::clone(&device).create_completion_queue(16).unwrap();
    let mut queue_pair = Arc::clone(&device).create_queue_pair(&completions.handle(), &caps()).unwrap();
    let (port, _front) = closing_front(1, usize::MAX);
    let begin = Instant::now();
    let error = queue_pair.connect(&QpAddress { lid: port, ..queue_pair.address() }, &peer::path());
    let text = error.unwrap_err().to_string();
    assert!(text.contains("waiting for its hello") && text.contains(&port.to_string()), "{text}");
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}
