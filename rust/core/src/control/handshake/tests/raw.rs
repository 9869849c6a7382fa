//! The lane part alone, as the adaptor table's connect and accept use it.

use super::original::{MAGIC, bytes, handle, port_of, record, send};
use super::*;
use crate::control::socket::connect;

type Accepted = (Result<RawPeer, HandshakeError>, FakeLanes);

/// A listener and a thread that accepts one peer.
fn accepting() -> (Arc<RawListener>, thread::JoinHandle<Accepted>) {
    let listener = Arc::new(raw_listener(&limits()).unwrap());
    let thread = {
        let listener = Arc::clone(&listener);
        thread::spawn(move || {
            let mut lanes = FakeLanes::new(200);
            (listener.accept(&mut lanes, &limits()), lanes)
        })
    };
    (listener, thread)
}

fn address(listener: &RawListener) -> SocketAddr {
    SocketAddr::new(LOOPBACK, port_of(&listener.handle()))
}

#[test]
fn both_roles_meet_whatever_lies_behind_the_handle() {
    let (listener, accepting) = accepting();
    let mut handle = vec![0xcc; 128];
    handle[..40].copy_from_slice(&listener.handle());
    let mut lanes = FakeLanes::new(100);
    let peer = initiate_raw(&handle, &mut lanes, &limits()).unwrap();
    let (their_peer, their_lanes) = accepting.join().unwrap();
    let their_peer = their_peer.unwrap();
    assert_eq!((peer.lanes, their_peer.lanes), (4, 4));
    assert!(peer.capabilities.ours && their_peer.capabilities.ours);
    assert_eq!((lanes.peer_qpns()[0], their_lanes.peer_qpns()[0]), (200, 100));
}

#[test]
fn a_handle_that_is_none_is_refused() {
    let mut bad = handle(1);
    bad[32] ^= 1;
    let mut lanes = FakeLanes::new(100);
    assert_eq!(initiate_raw(&bad, &mut lanes, &limits()).unwrap_err().step, Step::Handles);
    let error = initiate_raw(&handle(1)[..39], &mut lanes, &limits()).unwrap_err();
    assert!(error.to_string().contains("39 bytes"), "{error}");
}

#[test]
fn an_original_connector_is_answered() {
    let (listener, accepting) = accepting();
    let socket = connect(address(&listener), soon(), None).unwrap();
    send(&socket, &[&MAGIC, &[4, 0, 0, 0], &[2, 0, 0, 0]]);
    assert_eq!(bytes(&socket, 4), [4, 0, 0, 0]);
    send(&socket, &[&record(50), &record(51)]);
    let records = bytes(&socket, 80);
    assert_eq!((records[0], records[40], records[25], records[32]), (200, 201, 0x53, 5));
    send(&socket, &[&[1, 0, 0, 0]]);
    assert_eq!(bytes(&socket, 4), [1, 0, 0, 0]);
    let (peer, lanes) = accepting.join().unwrap();
    let peer = peer.unwrap();
    assert_eq!((peer.lanes, peer.capabilities.ours, lanes.peer_qpns()), (2, false, vec![50, 51]));
    assert_eq!(peer.capabilities.lanes, LaneCapabilities::ORIGINAL);
    assert!(!socket.is_closed(), "the socket lives with the connection");
}

#[test]
fn an_original_acceptor_is_understood() {
    let listener = listener();
    let handle = handle(listener.local().port());
    let scripted = thread::spawn(move || {
        let socket = listener.accept_by(Some(soon())).unwrap();
        assert_eq!(bytes(&socket, 16), [&MAGIC[..], &[4, 0, 0, 0], &[4, 0, 0, 0]].concat());
        send(&socket, &[&[2, 0, 0, 0]]);
        assert_eq!(bytes(&socket, 80)[0], 100);
        send(&socket, &[&record(50), &record(51)]);
        assert_eq!(bytes(&socket, 4), [1, 0, 0, 0]);
        send(&socket, &[&[1, 0, 0, 0]]);
        socket
    });
    let mut lanes = FakeLanes::new(100);
    let peer = initiate_raw(&handle, &mut lanes, &limits()).unwrap();
    assert_eq!((peer.lanes, peer.capabilities.ours, lanes.peer_qpns()), (2, false, vec![50, 51]));
    scripted.join().unwrap();
}

#[test]
fn other_clients_and_silent_sockets_delay_no_peer() {
    let (listener, accepting) = accepting();
    let target = address(&listener);
    let _silent = connect(target, soon(), None).unwrap();
    let client = connect(target, soon(), None).unwrap();
    send(&client, &[b"GET / HTTP/1.1"]);
    let half = connect(target, soon(), None).unwrap();
    send(&half, &[&MAGIC[..5]]);
    let start = Instant::now();
    initiate_raw(&listener.handle(), &mut FakeLanes::new(100), &limits()).unwrap();
    accepting.join().unwrap().0.unwrap();
    assert!(start.elapsed() < limits().handshake_timeout);

    // Sockets that connected meanwhile are kept: the one with half a hello finishes with the next accept.
    let next = {
        let listener = Arc::clone(&listener);
        thread::spawn(move || listener.accept(&mut FakeLanes::new(200), &limits()))
    };
    send(&half, &[&MAGIC[5..], &[4, 0, 0, 0], &[1, 0, 0, 0]]);
    assert_eq!(bytes(&half, 4), [4, 0, 0, 0]);
    send(&half, &[&record(50)]);
    bytes(&half, 40);
    send(&half, &[&[1, 0, 0, 0]]);
    assert_eq!(next.join().unwrap().unwrap().lanes, 1);
}

#[test]
fn another_kind_of_socket_ends_the_accept() {
    let (listener, accepting) = accepting();
    let socket = connect(address(&listener), soon(), None).unwrap();
    send(&socket, &[&MAGIC, &[2, 0, 0, 0]]);
    let error = accepting.join().unwrap().0.unwrap_err();
    assert!(matches!(error.reason, Reason::SocketKind { found: 2, expected: 4 }), "{error}");
}

#[test]
fn an_abort_ends_accepting_for_good() {
    let (listener, accepting) = accepting();
    thread::sleep(Duration::from_millis(20));
    listener.abort();
    assert!(accepting.join().unwrap().0.unwrap_err().is_aborted());
    assert!(listener.accept(&mut FakeLanes::new(200), &limits()).unwrap_err().is_aborted());
}
