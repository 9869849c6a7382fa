//! Deadlines, aborts and repeated connects, over loopback.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::super::AllowList;
use super::*;
use crate::events::Abort;

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
fn a_refused_port_is_tried_until_a_process_listens() {
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

/// A port of `host` at which connects get no answer for as long as the value lives: its queue is full.
struct Silent {
    address: SocketAddr,
    _sockets: Vec<Socket>,
}

impl Silent {
    fn at(host: Ipv4Addr, port: u16) -> Self {
        let new = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let listener = new();
        listener.bind(&SocketAddr::from((host, port)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut sockets = vec![listener];
        // A backlog of 0 takes one; the kernel drops what comes later.
        for _ in 0..4 {
            let filling = new();
            let _ = filling.connect(&address.into());
            sockets.push(filling);
        }
        Self { address, _sockets: sockets }
    }
}

/// Of 127.0.0.0/8.
fn host(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

#[test]
fn a_silent_address_does_not_take_the_time_of_the_next() {
    let listener = Listener::bind(host(2).into(), None, &Abort::new().unwrap()).unwrap();
    let silent = Silent::at(host(3), listener.local().port());
    let start = Instant::now();
    let targets = [silent.address, listener.local()];
    let (target, stream) = connect_any(&targets, soon(), RefusalPolicy::UntilDeadline, None).unwrap();
    assert_eq!((target, stream.peer()), (listener.local(), listener.local()));
    let took = start.elapsed().as_millis();
    assert!((250..2000).contains(&took), "{took} ms");
}

#[test]
fn a_refused_address_costs_nothing() {
    let listener = Listener::bind(LOOPBACK, None, &Abort::new().unwrap()).unwrap();
    let refusing = (1..4).map(|last| SocketAddr::from((host(10 + last), listener.local().port())));
    let refusing = refusing.chain([SocketAddr::from((Ipv6Addr::LOCALHOST, listener.local().port()))]);
    let targets: Vec<_> = refusing.chain([listener.local()]).collect();
    // Of several tries the quickest counts: a machine that stalls slows some.
    let quickest = (0..5).map(|_| {
        let start = Instant::now();
        connect_any(&targets, soon(), RefusalPolicy::UntilDeadline, None).unwrap();
        start.elapsed()
    });
    let quickest = quickest.min().unwrap();
    assert!(quickest < Duration::from_millis(50), "{quickest:?}");
}

#[test]
fn one_deadline_holds_for_all_addresses() {
    let refused = Listener::bind(LOOPBACK, None, &Abort::new().unwrap()).unwrap().local();
    let silent = [2, 3, 4].map(|last| Silent::at(host(last), 0));
    let targets: Vec<_> = silent.iter().map(|one| one.address).chain([refused]).collect();
    let start = Instant::now();
    let deadline = start + Duration::from_secs(1);
    let error = connect_any(&targets, deadline, RefusalPolicy::UntilDeadline, None).unwrap_err();
    let took = start.elapsed().as_millis();
    assert!((1000..1500).contains(&took), "{took} ms");
    let ConnectError::Addresses(failures) = error else { panic!("{error:?}") };
    assert_eq!(failures.iter().map(|miss| miss.target).collect::<Vec<_>>(), targets);
    let texts: Vec<_> = failures.iter().map(AddressFailure::to_string).collect();
    for (text, target) in texts.iter().zip(&targets) {
        assert!(text.starts_with(&target.to_string()), "{texts:?}");
    }
    // Each has had its turn, the last of them after three quarters of the time.
    assert!(texts[..3].iter().all(|text| text.contains("timed out after")), "{texts:?}");
    assert!(texts[3].contains("refused") && failures[3].tries > 1, "{texts:?}");
}

#[test]
fn an_address_that_starts_to_listen_is_found_beside_a_silent_one() {
    let silent = Silent::at(host(2), 0);
    let free = Listener::bind(LOOPBACK, None, &Abort::new().unwrap()).unwrap().local();
    let late = thread::spawn(move || {
        thread::sleep(Duration::from_millis(400));
        let ports = Some((free.port(), free.port()));
        Listener::bind(LOOPBACK, ports, &Abort::new().unwrap()).unwrap()
    });
    let targets = [silent.address, free];
    let (target, _) = connect_any(&targets, soon(), RefusalPolicy::UntilDeadline, None).unwrap();
    assert_eq!(target, free);
    drop(late.join().unwrap());
}

#[test]
fn an_abort_ends_all_that_is_under_way() {
    let silent = [2, 3].map(|last| Silent::at(host(last), 0));
    let targets = silent.each_ref().map(|one| one.address);
    let abort = Abort::new().unwrap();
    let connecting = {
        let abort = abort.clone();
        thread::spawn(move || {
            connect_any(&targets, soon(), RefusalPolicy::UntilDeadline, Some(&abort)).unwrap_err()
        })
    };
    thread::sleep(Duration::from_millis(30));
    let start = Instant::now();
    abort.abort();
    let error = connecting.join().unwrap();
    assert!(matches!(&error, ConnectError::Wait(error) if error.kind() == ErrorKind::ConnectionAborted));
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn with_a_single_try_a_refusal_is_reported_at_once() {
    let free = Listener::bind(LOOPBACK, None, &Abort::new().unwrap()).unwrap().local();
    let start = Instant::now();
    let error = connect_any(&[free], soon(), RefusalPolicy::Once, None).unwrap_err();
    let ConnectError::Addresses(failures) = error else { panic!("{error:?}") };
    assert_eq!(failures[0].to_string(), format!("{free} refused"));
    assert!(start.elapsed() < Duration::from_secs(2));
}
