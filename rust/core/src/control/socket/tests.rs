//! Deadlines, aborts and patience, over loopback.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use super::super::AllowList;
use super::*;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

fn pair() -> (Stream, Stream) {
    let listener = Listener::bind(LOOPBACK, None, &Abort::new().unwrap()).unwrap();
    let client = connect(listener.local(), soon(), None).unwrap();
    (client, listener.accept_by(Some(soon())).unwrap())
}

#[test]
fn bytes_arrive_whole_in_both_families() {
    for address in [LOOPBACK, IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let abort = Abort::new().unwrap();
        let Ok(listener) = Listener::bind(address, None, &abort) else {
            println!("skipped: no loopback {address} on this host");
            continue;
        };
        let client = connect(listener.local(), soon(), None).unwrap();
        let server = listener.accept_by(Some(soon())).unwrap();
        assert_eq!((client.peer(), client.local()), (server.local(), server.peer()));
        let sent = vec![0x5a; 4 << 20];
        let writer = thread::spawn(move || {
            client.write_all_by(&sent, soon()).unwrap();
            client
        });
        let mut received = vec![0; 4 << 20];
        server.read_exact_by(&mut received, soon()).unwrap();
        assert!(received.iter().all(|byte| *byte == 0x5a));
        drop(writer.join().unwrap());
        assert_eq!(server.read_exact_by(&mut [0], soon()).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert!(server.is_closed());
    }
}

#[test]
fn a_silent_peer_ends_at_the_deadline() {
    let (client, _server) = pair();
    let start = Instant::now();
    let error = client.read_exact_by(&mut [0], start + Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!((50..2000).contains(&start.elapsed().as_millis()));
    assert!(!client.is_closed());
    assert_eq!(client.try_read(&mut [0]).unwrap(), None);
}

#[test]
fn a_peer_that_does_not_read_ends_at_the_deadline() {
    let (client, _server) = pair();
    let deadline = Instant::now() + Duration::from_millis(50);
    let error = client.write_all_by(&vec![0; 64 << 20], deadline).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn an_abort_ends_waits_of_other_threads() {
    let abort = Abort::new().unwrap();
    let listener = Listener::bind(LOOPBACK, None, &abort).unwrap();
    let client = connect(listener.local(), soon(), Some(&abort)).unwrap();
    let reader = thread::spawn(move || client.read_exact_by(&mut [0], soon()).unwrap_err().kind());
    let _server = listener.accept_by(None).unwrap();
    let acceptor = thread::spawn(move || {
        let error = listener.accept_by(None).unwrap_err().kind();
        (error, listener.accept_by(None).unwrap_err().kind())
    });
    thread::sleep(Duration::from_millis(30));
    abort.abort();
    abort.abort();
    assert!(abort.is_aborted());
    assert_eq!(reader.join().unwrap(), ErrorKind::ConnectionAborted);
    assert_eq!(acceptor.join().unwrap(), (ErrorKind::ConnectionAborted, ErrorKind::ConnectionAborted));
}

#[test]
fn a_refused_port_is_tried_until_somebody_listens() {
    let free = Listener::bind(LOOPBACK, None, &Abort::new().unwrap()).unwrap().local();
    let late = thread::spawn(move || {
        thread::sleep(Duration::from_millis(120));
        let ports = Some((free.port(), free.port()));
        Listener::bind(LOOPBACK, ports, &Abort::new().unwrap()).unwrap()
    });
    connect(free, soon(), None).unwrap();
    drop(late.join().unwrap());
}

#[test]
fn a_refused_port_ends_at_the_deadline_or_the_abort() {
    let free = Listener::bind(LOOPBACK, None, &Abort::new().unwrap()).unwrap().local();
    let start = Instant::now();
    let error = connect(free, start + Duration::from_millis(80), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!((80..2000).contains(&start.elapsed().as_millis()));

    let abort = Abort::new().unwrap();
    let connecting = {
        let abort = abort.clone();
        thread::spawn(move || connect(free, soon(), Some(&abort)).unwrap_err().kind())
    };
    thread::sleep(Duration::from_millis(20));
    abort.abort();
    assert_eq!(connecting.join().unwrap(), ErrorKind::ConnectionAborted);
}

#[test]
fn ports_come_from_the_range() {
    let abort = Abort::new().unwrap();
    let port = Listener::bind(LOOPBACK, None, &abort).unwrap().local().port();
    let first = Listener::bind(LOOPBACK, Some((port, port)), &abort).unwrap();
    assert_eq!(first.local().port(), port);
    let error = Listener::bind(LOOPBACK, Some((port, port)), &abort).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[test]
fn addresses_that_are_not_allowed_are_closed_unread() {
    let allow = AllowList::new(&["192.0.2.0/24".parse().unwrap()]);
    let listener = Listener::bind(LOOPBACK, None, &Abort::new().unwrap()).unwrap().with_allow_list(allow);
    let client = connect(listener.local(), soon(), None).unwrap();
    let deadline = Instant::now() + Duration::from_millis(50);
    assert_eq!(listener.accept_by(Some(deadline)).unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(client.read_exact_by(&mut [0], soon()).is_err());
}

#[test]
fn keepalive_can_be_set() {
    let (client, _server) = pair();
    client.set_keepalive(Some(Duration::from_millis(100))).unwrap();
    client.set_keepalive(None).unwrap();
}

#[test]
fn an_address_that_cannot_be_connected_to_is_an_error_at_once() {
    let start = Instant::now();
    assert!(connect("255.255.255.255:1".parse().unwrap(), soon(), None).is_err());
    assert!(start.elapsed() < Duration::from_secs(2));
}
