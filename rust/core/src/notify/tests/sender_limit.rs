//! The limit of unauthenticated senders of a receiver.

use super::*;

/// A sender from another address of this host, which counts as another host.
fn from_elsewhere(receiver: &Receiver) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((ELSEWHERE, 0)).into()).unwrap();
    socket.connect(&SocketAddr::new(LOOPBACK, receiver.port()).into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(&SocketKind::Notifications.encode()).unwrap();
    stream
}

/// Waits for the receiver's end of `stream`.
fn closed_elsewhere(mut stream: &TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn the_number_of_senders_without_a_connection_is_bounded() {
    let options = ReceiverOptions { max_peers: 2, hello_timeout: Duration::from_secs(60), ..options() };
    let receiver = Receiver::open(options).unwrap();
    let mut busy: Vec<_> = (0..2).map(|_| from_elsewhere(&receiver)).collect();
    for client in &mut busy {
        // In the middle of a message, so that neither is displaced.
        client.write_all(&Header::Message.encode()).unwrap();
    }
    thread::sleep(Duration::from_millis(20));
    assert!(closed_by_peer(&with_preamble(&receiver)));
    drop(busy);
    let deadline = soon();
    while Instant::now() < deadline {
        let next = with_preamble(&receiver);
        thread::sleep(Duration::from_millis(5));
        if !next.is_closed() {
            Sender::new(next, 0).send(&message(2), soon()).unwrap();
            break;
        }
    }
    assert_eq!(wait_for(1, || receiver.take()), [message(2)]);
}

/// The limit is for senders without a connection: peers are not counted, and lose nothing.
#[test]
fn connected_peers_are_not_counted() {
    const PEERS: u32 = 80;
    let options = ReceiverOptions { max_peers: 1, ..options() };
    let connected: Vec<_> = (0..PEERS).map(|_| options.connected_hosts.add(LOOPBACK)).collect();
    let receiver = Receiver::open(options).unwrap();
    let peers: Vec<_> = (0..PEERS).map(|_| sender(&receiver)).collect();
    for (number, peer) in peers.iter().enumerate() {
        peer.send(&message(number as u32), soon()).unwrap();
    }
    let mut taken = wait_for(PEERS as usize, || receiver.take());
    taken.sort_by_key(|message| shown(&message.text).parse::<u32>().unwrap());
    assert_eq!(taken, (0..PEERS).map(message).collect::<Vec<_>>());
    drop((connected, peers));
}

/// They connected first and hold the exemption of the host's one connection: the peer is admitted nevertheless.
#[test]
fn clients_on_the_host_of_a_peer_do_not_take_its_place() {
    let options = ReceiverOptions { max_peers: 4, ..options() };
    let connected_hosts = options.connected_hosts.clone();
    let receiver = Receiver::open(options).unwrap();
    let clients: Vec<_> = (0..4).map(|_| with_preamble(&receiver)).collect();
    thread::sleep(Duration::from_millis(20));
    let _connected: Vec<_> = (0..2).map(|_| connected_hosts.add(LOOPBACK)).collect();
    let peers: Vec<_> = (0..2).map(|_| with_preamble(&receiver)).collect();
    for peer in &peers {
        peer.write_all_by(&encode_owner(ProcessIdentity { pid: 1, fingerprint: 1 }), soon()).unwrap();
    }
    let more: Vec<_> = (0..20).map(|_| with_preamble(&receiver)).collect();
    thread::sleep(Duration::from_millis(20));
    for peer in peers {
        Sender::new(peer, 0).send(&message(7), soon()).unwrap();
    }
    assert_eq!(wait_for(2, || receiver.take()), [message(7), message(7)]);
    drop((clients, more));
}

#[test]
fn silent_clients_in_every_place_do_not_stop_a_newcomer() {
    let receiver = Receiver::open(options()).unwrap();
    let clients: Vec<_> = (0..64).map(|_| from_elsewhere(&receiver)).collect();
    thread::sleep(Duration::from_millis(20));
    let sender = sender(&receiver);
    sender.send(&message(1), soon()).unwrap();
    assert_eq!(wait_for(1, || receiver.take()), [message(1)]);
    // One of them was displaced, and no other.
    let here = |client: &&TcpStream| {
        client.set_nonblocking(true).unwrap();
        matches!(client.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    };
    assert_eq!(clients.iter().filter(here).count(), 63);
}

/// Otherwise one byte after the preamble would prevent displacement for ever.
#[test]
fn clients_in_the_middle_of_a_message_hold_their_places_for_a_while_only() {
    let hello_timeout = Duration::from_millis(100);
    let receiver = Receiver::open(ReceiverOptions { max_peers: 1, hello_timeout, ..options() }).unwrap();
    let mut client = from_elsewhere(&receiver);
    client.write_all(&Header::Message.encode()).unwrap();
    thread::sleep(Duration::from_millis(20));
    assert!(closed_by_peer(&with_preamble(&receiver)));
    thread::sleep(2 * hello_timeout);
    sender(&receiver).send(&message(1), soon()).unwrap();
    assert_eq!(wait_for(1, || receiver.take()), [message(1)]);
    assert!(closed_elsewhere(&client));
}

/// However long it is silent: it could not know that its next message is lost.
#[test]
fn a_connected_host_keeps_its_place() {
    let options = ReceiverOptions { max_peers: 3, ..options() };
    let connected_hosts = options.connected_hosts.clone();
    let connected_host = connected_hosts.add(ELSEWHERE);
    let receiver = Receiver::open(options).unwrap();
    let mut peer = from_elsewhere(&receiver);
    thread::sleep(Duration::from_millis(20));
    let mut clients = Vec::new();
    for number in 0..20 {
        let sender = sender(&receiver);
        sender.send(&message(number), soon()).unwrap();
        wait_for(1, || receiver.take());
        clients.push(sender);
    }
    peer.write_all(&[&Header::Message.encode()[..], &[b'x'; 512]].concat()).unwrap();
    assert_eq!(wait_for(1, || receiver.take()), [Message { name: [b'x'; 256], text: [b'x'; 256] }]);
    drop(connected_host);
    let silent: Vec<_> = (0..3).map(|_| with_preamble(&receiver)).collect();
    assert!(closed_elsewhere(&peer));
    drop(silent);
}
