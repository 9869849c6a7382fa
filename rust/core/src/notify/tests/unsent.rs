//! Messages that the socket does not take by their deadline.

use std::os::fd::AsFd;

use super::*;

/// A sender to a receiver that reads no further, and its socket once more.
fn held_back(receiver: &Receiver) -> (Sender, TcpStream) {
    let stream = with_preamble(receiver);
    let socket = TcpStream::from(stream.as_fd().try_clone_to_owned().unwrap());
    (Sender::new(stream, 1 << 20), socket)
}

/// Fills the socket with messages until it takes no byte more; answers how many of `message` it has taken of the last one.
fn fill(mut socket: &TcpStream, message: &[u8]) -> (usize, usize) {
    let (mut whole, mut taken, mut refused) = (0, 0, 0);
    // A receiver that still reads, or the kernel on its behalf, makes room again at first.
    while refused < 250 {
        match socket.write(&message[taken..]) {
            Ok(count) => (taken, refused) = (taken + count, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                refused += 1;
                thread::sleep(Duration::from_millis(2));
            }
        }
        if taken == message.len() {
            (whole, taken) = (whole + 1, 0);
        }
    }
    (whole, taken)
}

#[test]
fn one_of_which_nothing_was_sent_leaves_the_channel_open() {
    let receiver = Receiver::open(ReceiverOptions { queue: 1000, ..options() }).unwrap();
    let (sender, mut socket) = held_back(&receiver);
    let filling = [&Header::Message.encode()[..], &[b'f'; 512]].concat();
    let (whole, taken) = fill(&socket, &filling);
    for _ in 0..2 {
        let error = sender.send_bytes(b"late", b"x", Instant::now() + Duration::from_millis(20)).unwrap_err();
        assert!(error.to_string().contains("nothing of it was sent"), "{error}");
    }
    let mut arrived = 0;
    let mut read = |count| arrived += wait_for(count, || receiver.take_all()).len();
    read(whole);
    if taken > 0 {
        socket.write_all(&filling[taken..]).unwrap();
        read(1);
    }
    sender.send_bytes(b"next", b"y", soon()).unwrap();
    assert_eq!(wait_for(1, || receiver.take_all()), [exact(b"next", b"y")]);
    assert!(arrived >= whole);
}

#[test]
fn one_of_which_a_part_was_sent_closes_it() {
    let receiver = Receiver::open(ReceiverOptions { queue: 1, ..options() }).unwrap();
    let (sender, _) = held_back(&receiver);
    sender.send(&message(0), soon()).unwrap();
    sender.send(&message(1), soon()).unwrap();
    let large = vec![1; 1 << 20];
    let error = (0..1000)
        .find_map(|_| sender.send_bytes(b"large", &large, Instant::now() + Duration::from_millis(50)).err())
        .expect("a socket takes a gigabyte");
    assert!(error.to_string().contains("the channel is closed now"), "{error}");
    assert!(matches!(sender.send(&message(2), soon()), Err(NotifyError::NoChannel)));
}
