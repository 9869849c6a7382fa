//! Frames about rails, as bytes.

use super::*;
use crate::control::wire::{LaneRecord, MAX_NIC_LIST, MAX_NICS, NicRecord};
use crate::fabric::QpAddress;

/// The frame of each kind, behind magic and version: kind, length of the payload, payload.
#[test]
fn frames_about_rails_have_these_bytes() {
    let lane_payload = [63, 0, 0, 0, 8, 0, 0, 0];
    for (frame, kind, payload) in [
        (ChannelFrame::AddRail { rail: 7, own: 513, peer: 2, lanes: 4 }, 12, [7, 4, 1, 2, 2, 0, 0, 0]),
        (ChannelFrame::RailReady { rail: 1 }, 13, [1, 0, 0, 0, 0, 0, 0, 0]),
        (ChannelFrame::RailRefused { rail: 3, why: RailRefusal::Unlike }, 14, [3, 3, 0, 0, 0, 0, 0, 0]),
        (ChannelFrame::RequestRail { own: 1, peer: 65_535 }, 15, [0, 0, 1, 0, 255, 255, 0, 0]),
        (
            ChannelFrame::PathTried { rail: 2, number: 513, answer: PathAnswer::Ended },
            23,
            [2, 0, 0, 0, 1, 2, 0, 0],
        ),
        (
            ChannelFrame::PathTried { rail: 2, number: 3, answer: PathAnswer::Refused(RailRefusal::Limited) },
            23,
            [2, 2, 4, 0, 3, 0, 0, 0],
        ),
        (
            ChannelFrame::PathTried { rail: 2, number: 3, answer: PathAnswer::Unreached },
            23,
            [2, 3, 0, 0, 3, 0, 0, 0],
        ),
        (
            ChannelFrame::RequestRefused { own: 1, peer: 65_535, why: RailRefusal::Unusable },
            24,
            [0, 2, 1, 0, 255, 255, 0, 0],
        ),
        (ChannelFrame::Quiesce { lane: 63, number: 8 }, 16, lane_payload),
        (ChannelFrame::Quiesced { lane: 63, number: 8 }, 17, lane_payload),
        (ChannelFrame::NotNow { lane: 63, attempt: 8 }, 26, lane_payload),
    ] {
        let bytes = [&[0x46, 0x58, 0x43, 0x4c, 1, 0, kind, 0, 8, 0, 0, 0], &payload[..]].concat();
        assert_eq!(frame.encode(), bytes, "{frame:?}");
        assert_eq!(Received::decode(&bytes), Ok(Some((Received::Frame(frame), 20))));
        let short = [&bytes[..8], &[5, 0, 0, 0], &payload[..5]].concat();
        assert!(Received::decode(&short).is_err(), "{frame:?}");
    }
}

#[test]
fn trials_of_paths_have_these_bytes() {
    let address = QpAddress { qpn: 7, gid: [9; 16], port: 1, link_layer: 2, lid: 3, mtu: 5 };
    let record = LaneRecord { address, capabilities: None };
    let trial = ChannelFrame::TryPath { rail: 7, number: 513, own: 1, peer: 258, record };
    let ready = ChannelFrame::PathTried { rail: 7, number: 4, answer: PathAnswer::Ready(record) };
    let asked = [7, 0, 1, 0, 2, 1, 0, 0, 1, 2, 0, 0];
    for (frame, kind, front) in [(trial, 22, &asked[..]), (ready, 23, &[7, 1, 0, 0, 4, 0, 0, 0][..])] {
        let payload = [front, &record.encode()].concat();
        let bytes =
            [&[0x46, 0x58, 0x43, 0x4c, 1, 0, kind, 0, payload.len() as u8, 0, 0, 0], &payload[..]].concat();
        assert_eq!(frame.encode(), bytes, "{frame:?}");
        assert_eq!(Received::decode(&bytes), Ok(Some((Received::Frame(frame), bytes.len()))));
        for length in 0..payload.len() {
            let short = [&bytes[..8], &[length as u8, 0, 0, 0], &payload[..length]].concat();
            assert!(Received::decode(&short).is_err(), "{frame:?}, {length} bytes");
        }
    }
}

/// An answer of a later version.
#[test]
fn another_answer_to_a_trial_is_a_refusal() {
    let mut frame = ChannelFrame::PathTried { rail: 2, number: 3, answer: PathAnswer::Ended }.encode();
    frame[13] = 9;
    let answer = PathAnswer::Refused(RailRefusal::Unknown);
    let expected = ChannelFrame::PathTried { rail: 2, number: 3, answer };
    assert_eq!(Received::decode(&frame), Ok(Some((Received::Frame(expected), 20))));
}

#[test]
fn refusals_of_a_later_version_are_of_something_unknown() {
    for (number, why) in [
        (0, RailRefusal::Unknown),
        (1, RailRefusal::Unknown),
        (2, RailRefusal::Unusable),
        (3, RailRefusal::Unlike),
        (4, RailRefusal::Limited),
        (5, RailRefusal::Unknown),
    ] {
        let mut frame = ChannelFrame::RailRefused { rail: 2, why: RailRefusal::Unknown }.encode();
        frame[13] = number;
        let expected = ChannelFrame::RailRefused { rail: 2, why };
        assert_eq!(Received::decode(&frame), Ok(Some((Received::Frame(expected), 20))));
    }
}

/// Longer than frames but those about regions may be, in any cut, and among others.
#[test]
fn lists_of_nics_survive() {
    let nic = NicRecord {
        speed_mbps: 200_000,
        link_layer: 1,
        mtu: 5,
        name: "n".repeat(64),
        networks: vec!["10.1.2.3/16".parse().unwrap(); 4],
    };
    let list = NicList::new(3, vec![nic; MAX_NICS]).unwrap();
    let frame = encode_nics(&list);
    assert_eq!(frame[..12], [0x46, 0x58, 0x43, 0x4c, 1, 0, 18, 0, 0x28, 0x09, 0, 0]);
    assert!(frame.len() > MAX_FRAME);
    for cut in [1, 7, 1000, 4000] {
        let (channel, client) = pair();
        let bytes = [frame.clone(), ChannelFrame::Ping(4).encode(), frame.clone()].concat();
        for part in bytes.chunks(cut) {
            client.write_all_by(part, soon()).unwrap();
        }
        let mut received = Vec::new();
        let deadline = soon();
        while received.len() < 3 && Instant::now() < deadline {
            received.extend(Some(channel.try_read().unwrap()).filter(|found| *found != Received::Nothing));
        }
        let nics = Received::Nics(list.clone());
        assert_eq!(received, [nics.clone(), Received::Frame(ChannelFrame::Ping(4)), nics]);
    }
}

#[test]
fn a_queued_list_of_nics_arrives() {
    let (channel, client) = pair();
    let nic = NicRecord { speed_mbps: 1, link_layer: 2, mtu: 1, name: "a".into(), networks: Vec::new() };
    let list = NicList::new(0, vec![nic]).unwrap();
    channel.queue_nics(&list);
    assert!(channel.flush().unwrap());
    let mut bytes = vec![0; encode_nics(&list).len()];
    client.read_exact_by(&mut bytes, soon()).unwrap();
    assert_eq!(Received::decode(&bytes), Ok(Some((Received::Nics(list), bytes.len()))));
}

#[test]
fn a_list_of_nics_that_is_too_long_is_refused_before_it_arrives() {
    let header = |length: usize| {
        let mut frame = ChannelFrame::Goodbye.encode();
        frame[6] = 18;
        frame[8..12].copy_from_slice(&(length as u32).to_le_bytes());
        frame
    };
    assert_eq!(Received::decode(&header(MAX_NIC_LIST)), Ok(None), "to be waited for");
    let problem = Received::decode(&header(MAX_NIC_LIST + 1)).unwrap_err().problem;
    assert_eq!(problem, "4097 bytes of payload, expected at most 4096");
    assert!(Received::decode(&header(0)).is_err(), "no NICs at all");
}
