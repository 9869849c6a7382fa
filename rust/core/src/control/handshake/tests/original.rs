//! Original engines, scripted byte for byte.

use super::*;
use crate::control::Stream;
use crate::control::socket::connect;

pub(super) fn bytes(stream: &Stream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact_by(&mut bytes, soon()).unwrap();
    bytes
}

pub(super) fn send(stream: &Stream, parts: &[&[u8]]) {
    stream.write_all_by(&parts.concat(), soon()).unwrap();
}

pub(super) const MAGIC: [u8; 8] = [0x6c, 0x9d, 0x4b, 0xfc, 0xf2, 0xb9, 0x4a, 0x56];

/// The handle of an original engine that listens on this loopback port.
pub(super) fn handle(port: u16) -> Vec<u8> {
    let mut handle = vec![0; 128];
    handle[0] = 2;
    handle[2..4].copy_from_slice(&port.to_be_bytes());
    handle[4..8].copy_from_slice(&[127, 0, 0, 1]);
    handle[32..40].copy_from_slice(&MAGIC);
    handle
}

pub(super) fn port_of(handle: &[u8]) -> u16 {
    assert_eq!((handle[0], &handle[4..8], &handle[32..40]), (2, &[127, 0, 0, 1][..], &MAGIC[..]));
    u16::from_be_bytes([handle[2], handle[3]])
}

/// A lane record of an original engine on the software link (which it would never have; the bytes are the same).
pub(super) fn record(qpn: u8) -> Vec<u8> {
    let mut record = vec![0; 40];
    record[0] = qpn;
    record[8..24].fill(0xfe);
    record[24..26].copy_from_slice(&[1, 0x53]);
    record[28] = 7;
    record[32] = 5;
    record
}

pub(super) fn frame(tag: u8, payload: &[u8]) -> Vec<u8> {
    [&frame_of(tag, payload.len() as u32)[..], payload].concat()
}

/// The header of a frame.
pub(super) fn frame_of(tag: u8, size: u32) -> Vec<u8> {
    [&[tag, 0, 0, 0], &size.to_le_bytes()[..]].concat()
}

const META: [u8; 16] = [6, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];

pub(super) fn check(peer: &Peer, lanes: &FakeLanes) {
    assert_eq!(peer.features, None);
    assert!(!peer.proven, "whatever key we have");
    let original = PeerCapabilities { ours: false, lanes: LaneCapabilities::ORIGINAL };
    assert_eq!((peer.capabilities, lanes.peer), (original, Some(original)));
    assert_eq!((peer.gpu_index, peer.lanes, peer.local, peer.same_process), (6, 2, true, false));
    let region = RegionEntry {
        base: 0x1000,
        size: 0x2000,
        rkey: 3,
        id: 0,
        read_only: false,
        gpu_flush: false,
        continues: false,
    };
    assert_eq!(peer.regions, [region]);
    assert_eq!(lanes.peer_qpns(), [50, 51]);
}

const REGION: [u8; 24] = [0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0];

/// A key changes nothing for an original engine that is accepted without one.
fn limits_for_originals() -> [Limits; 2] {
    [limits(), Limits { allow_original: true, ..limits_with_key(7) }]
}

#[test]
fn an_original_initiator_is_answered() {
    limits_for_originals().into_iter().for_each(answer_an_original_initiator);
}

fn answer_an_original_initiator(limits: Limits) {
    let (target, responding) = responder(limits);
    let bootstrap = connect(target, soon(), None).unwrap();
    send(&bootstrap, &[&MAGIC, &[1, 0, 0, 0], &frame(4, &handle(1))]);
    let lane = answer_handle(&bootstrap);

    let (peer, lanes) = responding.join().unwrap();
    let peer = peer.unwrap();
    check(&peer, &lanes);
    assert!(!lane.is_closed(), "the lane socket lives with the connection");
}

/// The initiator's part once it has sent its handle; answers the lane socket.
pub(super) fn answer_handle(bootstrap: &Stream) -> Stream {
    assert_eq!(bytes(bootstrap, 8), [4, 0, 0, 0, 128, 0, 0, 0]);
    let port = port_of(&bytes(bootstrap, 128));

    let lane = connect(SocketAddr::new(LOOPBACK, port), soon(), None).unwrap();
    send(&lane, &[&MAGIC, &[4, 0, 0, 0], &[2, 0, 0, 0]]);
    assert_eq!(bytes(&lane, 4), [4, 0, 0, 0]);
    send(&lane, &[&record(50), &record(51)]);
    let records = bytes(&lane, 80);
    assert_eq!((records[0], records[40], records[25], records[32]), (200, 201, 0x53, 5));
    send(&lane, &[&[1, 0, 0, 0]]);
    assert_eq!(bytes(&lane, 4), [1, 0, 0, 0]);

    send(bootstrap, &[&frame(1, &META)]);
    assert_eq!(bytes(bootstrap, 24), frame(1, &[2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]));
    send(bootstrap, &[&frame(2, &[1, 0, 0, 0])]);
    assert_eq!(bytes(bootstrap, 12), frame(2, &[3, 0, 0, 0]));
    send(bootstrap, &[&frame(3, &REGION)]);
    let table = bytes(bootstrap, 8 + 72);
    assert_eq!(table[..8], frame(3, &[0; 72])[..8]);
    assert!(table[8..].chunks(24).all(|entry| entry[20..] == [0; 4]), "what is ours alone: {table:?}");
    assert_eq!(
        bootstrap.read_exact_by(&mut [0], soon()).unwrap_err().kind(),
        std::io::ErrorKind::UnexpectedEof
    );
    lane
}

#[test]
fn an_original_responder_is_understood() {
    limits_for_originals().into_iter().for_each(understand_an_original_responder);
}

fn understand_an_original_responder(limits: Limits) {
    let bootstrap_listener = listener();
    let target = bootstrap_listener.local();
    let scripted = thread::spawn(move || {
        let bootstrap = bootstrap_listener.accept_by(Some(soon())).unwrap();
        assert_eq!(bytes(&bootstrap, 12), [&MAGIC[..], &[1, 0, 0, 0]].concat());
        let lane = respond_on(&bootstrap);
        (bootstrap, lane)
    });
    let mut lanes = FakeLanes::new(100);
    // The caller states one process, which a peer without a process token cannot prove.
    let local = LocalSide { same_process: true, ..side(1, &Vec::new) };
    let peer = initiate(target, &local, &mut lanes, &limits).unwrap();
    scripted.join().unwrap();
    check(&peer, &lanes);
}

/// The responder's part from the handles on; answers the lane socket.
pub(super) fn respond_on(bootstrap: &Stream) -> Stream {
    let lane_listener = listener();
    assert_eq!(bytes(bootstrap, 8), [4, 0, 0, 0, 128, 0, 0, 0]);
    bytes(bootstrap, 128);
    send(bootstrap, &[&frame(4, &handle(lane_listener.local().port()))]);

    let lane = lane_listener.accept_by(Some(soon())).unwrap();
    assert_eq!(bytes(&lane, 12), [&MAGIC[..], &[4, 0, 0, 0]].concat());
    assert_eq!(bytes(&lane, 4), [4, 0, 0, 0]);
    send(&lane, &[&[2, 0, 0, 0]]);
    assert_eq!(bytes(&lane, 80)[0], 100);
    send(&lane, &[&record(50), &record(51)]);
    assert_eq!(bytes(&lane, 4), [1, 0, 0, 0]);
    send(&lane, &[&[1, 0, 0, 0]]);

    assert_eq!(bytes(bootstrap, 24), frame(1, &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]));
    send(bootstrap, &[&frame(1, &META)]);
    assert_eq!(bytes(bootstrap, 12), frame(2, &[0, 0, 0, 0]));
    send(bootstrap, &[&frame(2, &[1, 0, 0, 0])]);
    assert_eq!(bytes(bootstrap, 8), frame(3, &[]));
    send(bootstrap, &[&frame(3, &REGION)]);
    lane
}
