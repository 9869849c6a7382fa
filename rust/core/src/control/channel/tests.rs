mod rails;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::control::resume::ResumeOffer;
use crate::control::wire::{LaneCapabilities, LaneRecord, MAX_REGION_CHANGES, NicList, NicRecord};
use crate::control::{Abort, Listener, connect};
use crate::fabric::QpAddress;

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// A channel and the peer's end of it.
pub(crate) fn pair() -> (Channel, Stream) {
    let listener = Listener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST), None, &Abort::new().unwrap()).unwrap();
    let client = connect(listener.local(), soon(), None).unwrap();
    (Channel::new(listener.accept_by(Some(soon())).unwrap()), client)
}

fn next(channel: &Channel) -> io::Result<ChannelFrame> {
    let deadline = soon();
    while Instant::now() < deadline {
        match channel.try_read()? {
            Received::Frame(frame) => return Ok(frame),
            Received::Unknown | Received::Regions(_) | Received::Nics(_) => {}
            Received::Offer(_) | Received::Acknowledgement(_) => {}
            Received::Nothing => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    Err(ErrorKind::TimedOut.into())
}

fn frames() -> Vec<ChannelFrame> {
    let address = QpAddress { qpn: 7, gid: [9; 16], port: 1, link_layer: 2, lid: 3, mtu: 4 };
    let capabilities = Some(LaneCapabilities { rd_atomic_initiator: 1, rd_atomic_responder: 16 });
    let record = LaneRecord { address, capabilities };
    vec![
        ChannelFrame::Ping(u64::MAX),
        ChannelFrame::Pong(0),
        ChannelFrame::Rebuild { lane: 3, attempt: 9, record },
        ChannelFrame::Rebuilt { lane: 3, attempt: 9, record },
        ChannelFrame::Refused { lane: 1, attempt: 2 },
        ChannelFrame::Ready { lane: 7, attempt: 1 },
        ChannelFrame::Broken { lane: 2 },
        ChannelFrame::AddRail { rail: 7, own: 513, peer: 2, lanes: 4 },
        ChannelFrame::RailReady { rail: 1 },
        ChannelFrame::RailRefused { rail: 3, why: RailRefusal::Unlike },
        ChannelFrame::RequestRail { own: 1, peer: 65_535 },
        ChannelFrame::Quiesce { lane: 63, number: 8 },
        ChannelFrame::Quiesced { lane: 63, number: u32::MAX },
        ChannelFrame::NotNow { lane: 9, attempt: u32::MAX },
        ChannelFrame::TryPath { rail: 7, number: u32::MAX, own: 1, peer: 65_535, record },
        ChannelFrame::PathTried { rail: 7, number: 1, answer: PathAnswer::Ready(record) },
        ChannelFrame::PathTried { rail: 1, number: 2, answer: PathAnswer::Refused(RailRefusal::Unlike) },
        ChannelFrame::RequestRefused { own: 1, peer: 65_535, why: RailRefusal::Limited },
        ChannelFrame::Goodbye,
    ]
}

#[test]
fn frames_survive_in_any_cut() {
    let (channel, client) = pair();
    assert_eq!(channel.try_read().unwrap(), Received::Nothing);
    let bytes: Vec<u8> = frames().iter().flat_map(ChannelFrame::encode).collect();
    for part in bytes.chunks(7) {
        client.write_all_by(part, soon()).unwrap();
    }
    for frame in frames() {
        assert_eq!(next(&channel).unwrap(), frame);
    }
    drop(client);
    assert_eq!(next(&channel).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert!(channel.is_closed());
}

#[test]
fn a_frame_has_these_bytes() {
    let expected = [0x46, 0x58, 0x43, 0x4c, 1, 0, 1, 0, 8, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(ChannelFrame::Ping(5).encode(), expected);
}

#[test]
fn unknown_kinds_are_skipped_and_garbage_is_not() {
    let (channel, client) = pair();
    let mut unknown = ChannelFrame::Ping(1).encode();
    unknown[6] = 99;
    client.write_all_by(&unknown, soon()).unwrap();
    client.write_all_by(&ChannelFrame::Goodbye.encode(), soon()).unwrap();
    assert_eq!(next(&channel).unwrap(), ChannelFrame::Goodbye);
    client.write_all_by(b"what is this?", soon()).unwrap();
    assert_eq!(next(&channel).unwrap_err().kind(), ErrorKind::InvalidData);

    let mut long = ChannelFrame::Ping(1).encode();
    long[10] = 1;
    assert!(Received::decode(&long).is_err());
}

/// Longer than any other, and in any cut.
#[test]
fn frames_about_regions_survive() {
    use crate::control::wire::{AnnouncedRegion, Change, RegionChanges};
    let entry = |id| AnnouncedRegion {
        id,
        base: id << 12,
        size: 1 << 12,
        flags: 0,
        rkey: Some(id as u32),
        first_rkey: None,
    };
    let entries: Vec<_> = (1..=RegionChanges::MAX_ENTRIES as u64).map(entry).collect();
    let frames = [
        RegionFrame::Sync(3),
        RegionFrame::Changes(RegionChanges { version: 9, rail: 0, change: Change::Add, entries }),
        RegionFrame::Synced(3),
    ];
    assert_eq!(frames[0].encode()[..16], [0x46, 0x58, 0x43, 0x4c, 1, 0, 10, 0, 8, 0, 0, 0, 3, 0, 0, 0]);
    let (channel, client) = pair();
    let bytes: Vec<u8> = frames.iter().flat_map(RegionFrame::encode).collect();
    for part in bytes.chunks(999) {
        client.write_all_by(part, soon()).unwrap();
    }
    for frame in frames {
        let mut found = Received::Nothing;
        while found == Received::Nothing {
            found = channel.try_read().unwrap();
        }
        assert_eq!(found, Received::Regions(frame));
    }
    let mut long = RegionFrame::Sync(1).encode();
    long[6] = 9;
    long[8..12].copy_from_slice(&(MAX_REGION_CHANGES as u32 + 1).to_le_bytes());
    assert!(Received::decode(&long).is_err());
}

/// They are written in several places.
#[test]
fn every_frame_has_a_kind_of_its_own() {
    let nic = NicRecord { speed_mbps: 1, link_layer: 1, mtu: 5, name: "nic".into(), networks: Vec::new() };
    let nics = NicList::new(0, vec![nic]).unwrap();
    let offer = ResumeOffer { name: 1, token: [2; 32], port: 3, addresses: Vec::new() };
    let of_regions = [RegionFrame::Sync(1).encode(), RegionFrame::Synced(1).encode()];
    let others = [encode_nics(&nics), encode_offer(&offer), encode_acknowledgement(1)];
    let all = frames().iter().map(ChannelFrame::encode).chain(of_regions).chain(others).collect::<Vec<_>>();
    let kinds: HashSet<_> = all.iter().map(|frame| [frame[6], frame[7]]).collect();
    let variants: HashSet<_> = frames().iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), variants.len() + 5);
}

#[test]
fn a_channel_that_could_not_send_is_shut_down() {
    let (channel, client) = pair();
    let deadline = Instant::now() + Duration::from_millis(100);
    let failed =
        std::iter::repeat_with(|| channel.send(&ChannelFrame::Ping(1), deadline)).find(Result::is_err);
    assert!(failed.unwrap().is_err());
    let mut buffer = vec![0; 1 << 16];
    while client.read_exact_by(&mut buffer, soon()).is_ok() {}
    assert!(client.is_closed());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>, kind: u16, payload in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = Received::decode(&bytes);
        let mut frame = ChannelFrame::Goodbye.encode();
        frame[6..8].copy_from_slice(&kind.to_le_bytes());
        frame[8] = payload.len() as u8;
        frame.extend(payload);
        let _ = Received::decode(&frame);
    }
}

/// Frames without end, of a peer that does not read: what waits for it does not grow.
#[test]
fn acknowledgements_do_not_pile_up_for_a_peer_that_does_not_read() {
    let (channel, peer) = pair();
    let stream = Arc::into_inner(lock(&channel.stream).take().unwrap()).unwrap();
    let channel = Channel::resumable(stream);
    let mut unknown = ChannelFrame::Pong(0).encode();
    unknown[6] = 99;
    let (mut rounds, mut full, mut due, mut before) = (0, 0, 0, 0);
    // A socket that took no more may take more later, as when the peer sends something and its window has grown.
    while full < 200 {
        assert!(rounds < 10_000, "the socket takes all");
        let is_full = !channel.flush().unwrap();
        if !is_full {
            lock(&channel.outgoing).bytes = vec![0; 64 << 10];
        } else if full == 0 {
            before = lock(&channel.outgoing).bytes.len();
        }
        peer.write_all_by(&unknown.repeat(16), soon()).unwrap();
        for _ in 0..16 {
            while matches!(channel.try_read().unwrap(), Received::Nothing) {}
            due += u64::from(channel.acknowledge());
        }
        rounds += 1;
        (full, due) = if is_full { (full + 1, due) } else { (0, 0) };
    }
    assert_eq!(due, 200);
    assert!(lock(&channel.outgoing).bytes.len() <= before);
    assert_eq!(lock(&channel.outgoing).acknowledgement, Some(16 * rounds));
}

#[test]
fn a_goodbye_behind_other_frames_is_found() {
    let (channel, peer) = pair();
    peer.write_all_by(&ChannelFrame::Broken { lane: 3 }.encode().repeat(100), soon()).unwrap();
    assert!(!channel.has_goodbye());
    peer.write_all_by(&ChannelFrame::Goodbye.encode(), soon()).unwrap();
    drop(peer);
    let deadline = soon();
    while !channel.has_goodbye() {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(channel.suspend(), 0, "none of them is counted: they are sent again");
}
