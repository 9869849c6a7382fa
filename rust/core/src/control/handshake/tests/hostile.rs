//! Clients that are not peers: silent, slow, malformed, and almost valid.

use super::*;
use crate::control::socket::connect;
use crate::control::wire::{FrameHeader, Handle, SocketKind, Tag};

fn short() -> Limits {
    Limits { handshake_timeout: Duration::from_millis(150), ..limits() }
}

#[test]
fn a_silent_client_is_dropped_at_the_deadline() {
    let (target, responding) = responder(short());
    let start = Instant::now();
    let _silent = connect(target, soon(), None).unwrap();
    let error = responding.join().unwrap().0.unwrap_err();
    assert!(matches!(error.reason, Reason::TimedOut) && error.is_stray(), "{error}");
    assert!((150..1500).contains(&start.elapsed().as_millis()));
}

/// Bytes that trickle in do not extend the deadline.
#[test]
fn a_slow_client_is_dropped_at_the_deadline() {
    let (target, responding) = responder(short());
    let start = Instant::now();
    let slow = connect(target, soon(), None).unwrap();
    slow.write_all_by(&SocketKind::Bootstrap.encode(), soon()).unwrap();
    for byte in [4, 0, 0, 0, 128, 0, 0, 0, 2, 0, 1, 1, 1, 1] {
        let _ = slow.write_all_by(&[byte], soon());
        thread::sleep(Duration::from_millis(20));
    }
    let error = responding.join().unwrap().0.unwrap_err();
    assert!(matches!(error.reason, Reason::TimedOut) && !error.is_stray(), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn garbage_and_other_kinds_of_socket_are_distinguished() {
    let (target, responding) = responder(limits());
    connect(target, soon(), None).unwrap().write_all_by(b"GET / HTTP/1.1\r\n\r\n", soon()).unwrap();
    let error = responding.join().unwrap().0.unwrap_err();
    assert!(error.is_stray() && error.to_string().contains("magic"), "{error}");

    let (target, responding) = responder(limits());
    connect(target, soon(), None).unwrap().write_all_by(&SocketKind::Lanes.encode(), soon()).unwrap();
    let error = responding.join().unwrap().0.unwrap_err();
    assert!(!error.is_stray() && error.to_string().contains("kind 4, expected 1"), "{error}");
}

#[test]
fn frames_of_wrong_tag_or_size_end_the_handshake() {
    for (tag, size) in [(4, -1), (4, i32::MIN), (4, i32::MAX), (4, 129), (1, 128), (4, 39)] {
        let (target, responding) = responder(limits());
        let stream = connect(target, soon(), None).unwrap();
        stream.write_all_by(&SocketKind::Bootstrap.encode(), soon()).unwrap();
        stream.write_all_by(&FrameHeader { tag, size }.encode(), soon()).unwrap();
        let _ = stream.write_all_by(&[0; 64], soon());
        let error = responding.join().unwrap().0.unwrap_err();
        assert_eq!(error.step, Step::Handles, "{error}");
        assert!(matches!(error.reason, Reason::Wire(_)), "{error}");
    }
}

/// Runs a scripted initiator of an original engine up to the lane socket's address.
fn begin(target: SocketAddr) -> (Stream, SocketAddr) {
    let stream = connect(target, soon(), None).unwrap();
    let handle = Handle { address: target, features: None }.encode();
    let header = FrameHeader { tag: Tag::Handle as i32, size: handle.len() as i32 }.encode();
    stream.write_all_by(&SocketKind::Bootstrap.encode(), soon()).unwrap();
    stream.write_all_by(&[&header[..], &handle].concat(), soon()).unwrap();
    let mut answer = [0; 136];
    stream.read_exact_by(&mut answer, soon()).unwrap();
    let address = Handle::decode(&answer[8..]).unwrap().address;
    (stream, address)
}

#[test]
fn a_wrong_number_of_lanes_is_refused() {
    let (target, responding) = responder(limits());
    let (_bootstrap, address) = begin(target);
    for count in [0_u32, 9, u32::MAX] {
        let client = connect(address, soon(), None).unwrap();
        client.write_all_by(&SocketKind::Lanes.encode(), soon()).unwrap();
        client.write_all_by(&count.to_le_bytes(), soon()).unwrap();
        assert!(client.read_exact_by(&mut [0], soon()).is_err(), "{count} lanes were taken");
    }
    let lane = connect(address, soon(), None).unwrap();
    lane.write_all_by(&SocketKind::Lanes.encode(), soon()).unwrap();
    lane.write_all_by(&3_u32.to_le_bytes(), soon()).unwrap();
    let mut answer = [0; 4];
    lane.read_exact_by(&mut answer, soon()).unwrap();
    assert_eq!(answer, [4, 0, 0, 0]);
    drop(lane);
    let (peer, lanes) = responding.join().unwrap();
    assert_eq!(peer.unwrap_err().step, Step::LaneRecords);
    assert_eq!(lanes.created, 3);
}

#[test]
fn other_clients_of_the_lane_listener_are_refused_and_delay_no_peer() {
    let (target, responding) = responder(limits());
    let (_bootstrap, address) = begin(target);
    let start = Instant::now();
    let silent: Vec<_> = (0..40).map(|_| connect(address, soon(), None).unwrap()).collect();
    let garbage = connect(address, soon(), None).unwrap();
    garbage.write_all_by(&[0x41; 64], soon()).unwrap();
    let wrong_kind = connect(address, soon(), None).unwrap();
    wrong_kind.write_all_by(&SocketKind::Bootstrap.encode(), soon()).unwrap();

    let lane = connect(address, soon(), None).unwrap();
    for part in SocketKind::Lanes.encode().chunks(5) {
        lane.write_all_by(part, soon()).unwrap();
        thread::sleep(Duration::from_millis(10));
    }
    lane.write_all_by(&3_u32.to_le_bytes(), soon()).unwrap();
    let mut answer = [0; 4];
    lane.read_exact_by(&mut answer, soon()).unwrap();
    assert_eq!(answer, [4, 0, 0, 0]);
    assert!(start.elapsed() < Duration::from_secs(1));
    drop((lane, silent));
    let (peer, lanes) = responding.join().unwrap();
    assert_eq!(peer.unwrap_err().step, Step::LaneRecords);
    assert_eq!(lanes.created, 3);
}

/// Runs a scripted original initiator up to the region tables.
fn up_to_regions(target: SocketAddr) -> (Stream, Stream) {
    let (bootstrap, address) = begin(target);
    let lane = connect(address, soon(), None).unwrap();
    let mut record = [0; 40];
    record[25] = LINK_SOFTWARE;
    record[32] = 1;
    let parts = [&SocketKind::Lanes.encode()[..], &[1, 0, 0, 0], &record, &[1, 0, 0, 0]].concat();
    lane.write_all_by(&parts, soon()).unwrap();
    let meta = [&FrameHeader { tag: 1, size: 16 }.encode()[..], &[0; 16]].concat();
    bootstrap.write_all_by(&meta, soon()).unwrap();
    (bootstrap, lane)
}

#[test]
fn region_tables_are_bounded() {
    for count in [65_537_u32, u32::MAX] {
        let (target, responding) = responder(limits());
        let (bootstrap, _lane) = up_to_regions(target);
        let frame = [&FrameHeader { tag: 2, size: 4 }.encode()[..], &count.to_le_bytes()].concat();
        bootstrap.write_all_by(&frame, soon()).unwrap();
        let error = responding.join().unwrap().0.unwrap_err();
        assert_eq!(error.step, Step::Regions);
        assert!(error.to_string().contains("at most 65536"), "{error}");
    }
    // More bytes than announced, and a size that is no whole number of entries.
    for size in [48, 23] {
        let (target, responding) = responder(limits());
        let (bootstrap, _lane) = up_to_regions(target);
        let count = [&FrameHeader { tag: 2, size: 4 }.encode()[..], &[1, 0, 0, 0]].concat();
        let table = [&FrameHeader { tag: 3, size }.encode()[..], &vec![0; size as usize]].concat();
        bootstrap.write_all_by(&[count, table].concat(), soon()).unwrap();
        assert_eq!(responding.join().unwrap().0.unwrap_err().step, Step::Regions);
    }
}

#[test]
fn a_peer_that_hangs_up_is_named() {
    let (target, responding) = responder(limits());
    let (bootstrap, lane) = up_to_regions(target);
    let ours = bootstrap.local();
    drop((bootstrap, lane));
    let error = responding.join().unwrap().0.unwrap_err();
    assert!(error.to_string().contains(&ours.to_string()), "{error}");
    assert!(matches!(error.reason, Reason::Closed), "{error}");
}
