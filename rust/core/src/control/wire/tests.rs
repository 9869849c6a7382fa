//! Fixtures written out by hand from the description of the original engine's formats, and round trips.

mod next_version;
mod rails;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use proptest::prelude::*;

use super::*;
use crate::fabric::QpAddress;
use crate::process::ProcessIdentity;

/// Bytes from a text of hexadecimal digits; blanks are for the eye.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter(|character| !character.is_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap()).collect()
}

#[test]
fn preamble_bytes() {
    let magic = "6c 9d 4b fc f2 b9 4a 56";
    for (kind, number) in [
        (SocketKind::Bootstrap, "01 00 00 00"),
        (SocketKind::Notifications, "02 00 00 00"),
        (SocketKind::Lanes, "04 00 00 00"),
    ] {
        let bytes = hex(&format!("{magic} {number}"));
        assert_eq!(kind.encode().as_slice(), bytes);
        assert_eq!(SocketKind::decode(&bytes), Ok(Ok(kind)));
    }
    assert_eq!(SocketKind::decode(&hex(&format!("{magic} ff ff ff ff"))), Ok(Err(-1)));
    assert!(SocketKind::decode(b"GET / HTTP/1").is_err());
    assert!(SocketKind::decode(&hex(magic)).is_err());
}

#[test]
fn address_bytes() {
    let v4 = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 2), 53569));
    let bytes = hex("02 00 d1 41 c0 00 02 02 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00");
    assert_eq!(encode_address(&v4).as_slice(), bytes);
    assert_eq!(decode_address(&bytes), Ok(v4));
    let v6: SocketAddr = SocketAddrV6::new("fe80::1".parse().unwrap(), 258, 0, 3).into();
    let bytes = hex("0a 00 01 02 00 00 00 00 fe 80 00 00 00 00 00 00 00 00 00 00 00 00 00 01 03 00 00 00");
    assert_eq!(encode_address(&v6).as_slice(), bytes);
    assert_eq!(decode_address(&bytes), Ok(v6));
    assert!(decode_address(&[0; 28]).is_err());
}

#[test]
fn the_rest_of_an_ipv4_address_is_unspecified() {
    let mut bytes = encode_address(&SocketAddr::from(([10, 0, 0, 1], 1)));
    bytes[8..].fill(0xa5);
    assert_eq!(decode_address(&bytes), Ok(SocketAddr::from(([10, 0, 0, 1], 1))));
}

#[test]
fn handle_bytes_of_an_original_engine() {
    let mut bytes =
        hex("02 00 d1 41 c0 00 02 02 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
         6c 9d 4b fc f2 b9 4a 56");
    assert_eq!(Handle::encode_raw(&SocketAddr::from(([192, 0, 2, 2], 53569))).as_slice(), bytes);
    bytes.resize(HANDLE_SIZE, 0);
    let handle = Handle { address: SocketAddr::from(([192, 0, 2, 2], 53569)), features: None };
    assert_eq!(handle.encode().as_slice(), bytes);
    assert_eq!(Handle::decode(&bytes), Ok(handle));
    bytes[32] ^= 1;
    assert!(Handle::decode(&bytes).unwrap_err().problem.contains("magic"));
}

fn features() -> Features {
    Features {
        bits: Features::CHANNEL | Features::AUTH,
        max_notification: 0x0001_0203,
        incarnation: 0x1122_3344_5566_7788,
        process: 0x99aa_bbcc_ddee_ff00,
        nonce: *b"sixteen bytes ok",
        host: 0x0102_0304_0506_0708,
        identity: ProcessIdentity { pid: 0x0001_0203, fingerprint: 0x1020_3040_5060_7080 },
    }
}

#[test]
fn features_travel_behind_byte_40() {
    let handle = Handle { address: SocketAddr::from(([127, 0, 0, 1], 9)), features: Some(features()) };
    let bytes = handle.encode();
    assert_eq!(bytes[40..52], hex("66 63 78 2d 70 32 70 01 01 00 3c 00"));
    assert_eq!(
        bytes[56..116],
        hex("05 00 00 00 03 02 01 00 88 77 66 55 44 33 22 11 00 ff ee dd cc bb aa 99
             73 69 78 74 65 65 6e 20 62 79 74 65 73 20 6f 6b 08 07 06 05 04 03 02 01
             03 02 01 00 80 70 60 50 40 30 20 10")
    );
    assert!(bytes[116..].iter().all(|byte| *byte == 0));
    assert_eq!(Handle::decode(&bytes), Ok(handle));
    assert_eq!(Handle::decode_raw(&bytes), Ok(handle.address));
}

#[test]
fn anything_else_behind_byte_40_is_an_original_engine() {
    let handle = Handle { address: SocketAddr::from(([127, 0, 0, 1], 9)), features: Some(features()) };
    for offset in (40..116).filter(|offset| *offset != 50) {
        let mut bytes = handle.encode();
        bytes[offset] ^= 0x10;
        assert_eq!(Handle::decode(&bytes).unwrap().features, None, "byte {offset}");
    }
    let mut bytes = handle.encode();
    bytes[40..].fill(0xcc);
    assert_eq!(Handle::decode(&bytes).unwrap().features, None);
}

#[test]
fn a_longer_payload_of_a_later_version_is_read() {
    let mut bytes = features().encode();
    bytes[8] = 2;
    bytes[10] = 68;
    bytes[76..84].fill(7);
    let checksum = crc32c::crc32c(&[&bytes[8..12], &bytes[16..84]].concat());
    bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(Features::decode(&bytes), Some(features()));
    assert_eq!(Features::version(&bytes), Some(2));
    assert_eq!(Features::version(&[0; FEATURES_SIZE]), None);
}

#[test]
fn a_payload_of_an_earlier_version_says_no_host_or_no_process() {
    let without_process = Features { identity: ProcessIdentity::default(), ..features() };
    for (length, expected) in [(48, without_process), (40, Features { host: 0, ..without_process })] {
        let mut bytes = features().encode();
        bytes[10] = length as u8;
        bytes[16 + length..].fill(0);
        let checksum = crc32c::crc32c(&[&bytes[8..12], &bytes[16..16 + length]].concat());
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Features::decode(&bytes), Some(expected));
    }
}

#[test]
fn frame_bytes() {
    let header = FrameHeader { tag: 4, size: 128 };
    assert_eq!(header.encode().as_slice(), hex("04 00 00 00 80 00 00 00"));
    assert_eq!(FrameHeader::decode(&hex("04 00 00 00 80 00 00 00")), Ok(header));
    assert_eq!(header.expect(Tag::Handle, 128), Ok(128));
    assert!(header.expect(Tag::Handle, 127).is_err());
    assert!(header.expect(Tag::Meta, 128).is_err());
    assert!(FrameHeader { tag: 4, size: -1 }.expect(Tag::Handle, 128).is_err());
}

#[test]
fn meta_bytes() {
    let meta = ControlMeta { gpu_index: 3, notify_port: 48037, local: true, same_process: false };
    let bytes = hex("03 00 00 00 a5 bb 00 00 01 00 00 00 00 00 00 00");
    assert_eq!(meta.encode().as_slice(), bytes);
    assert_eq!(ControlMeta::decode(&bytes), Ok(meta));
    let same = ControlMeta { gpu_index: -1, notify_port: 0, local: true, same_process: true };
    assert_eq!(same.encode().as_slice(), hex("ff ff ff ff 00 00 00 00 03 00 00 00 00 00 00 00"));
    let bytes = hex("00 00 00 00 ff ff ff ff 00 00 00 00 00 00 00 00");
    assert_eq!(ControlMeta::decode(&bytes).unwrap().notify_port, 0);
}

#[test]
fn region_bytes() {
    let region = RegionEntry {
        base: 0x7f00_1234_5000,
        size: 0x10_0000,
        rkey: 0xdead_beef,
        id: 0,
        read_only: false,
        gpu_flush: false,
        continues: false,
    };
    let bytes = hex("00 50 34 12 00 7f 00 00 00 00 10 00 00 00 00 00 ef be ad de 00 00 00 00");
    assert_eq!(encode_regions(&[region]), bytes);
    assert_eq!(decode_regions(&bytes), Ok(vec![region]));
    assert_eq!(decode_regions(&[]), Ok(Vec::new()));
    assert!(decode_regions(&bytes[1..]).is_err());
    assert!(decode_regions(&vec![0; (MAX_REGIONS + 1) * REGION_SIZE]).is_err());
    let wrapping = RegionEntry { base: u64::MAX, size: 2, ..region };
    assert!(decode_regions(&encode_regions(&[wrapping])).is_err());
}

#[test]
fn region_ids_travel_in_the_pad() {
    let region = RegionEntry {
        base: 0x1000,
        size: 0x2000,
        rkey: 3,
        id: 0x0102,
        read_only: false,
        gpu_flush: false,
        continues: false,
    };
    let bytes = hex("00 10 00 00 00 00 00 00 00 20 00 00 00 00 00 00 03 00 00 00 02 01 00 00");
    assert_eq!(encode_regions(&[region]), bytes);
    assert_eq!(decode_regions(&bytes), Ok(vec![region]));
    let read_only = RegionEntry { read_only: true, ..region };
    let bytes = hex("00 10 00 00 00 00 00 00 00 20 00 00 00 00 00 00 03 00 00 00 02 01 00 80");
    assert_eq!(encode_regions(&[read_only]), bytes);
    assert_eq!(decode_regions(&bytes), Ok(vec![read_only]));
    let further = RegionEntry { continues: true, ..region };
    let bytes = hex("00 10 00 00 00 00 00 00 00 20 00 00 00 00 00 00 03 00 00 00 02 01 00 20");
    assert_eq!(encode_regions(&[further]), bytes);
    assert_eq!(decode_regions(&bytes), Ok(vec![further]));
    let flushed = RegionEntry { gpu_flush: true, ..region };
    let bytes = hex("00 10 00 00 00 00 00 00 00 20 00 00 00 00 00 00 03 00 00 00 02 01 00 40");
    assert_eq!(encode_regions(&[flushed]), bytes);
    assert_eq!(decode_regions(&bytes), Ok(vec![flushed]));
}

/// The examples of `docs/design.md`.
#[test]
fn region_changes_bytes() {
    let first =
        AnnouncedRegion { id: 8, base: 0x1000, size: 0x1000, flags: 0, rkey: Some(7), first_rkey: None };
    let second = AnnouncedRegion { id: 9, base: 0x9000, size: 16, flags: 0, rkey: Some(8), first_rkey: None };
    let added = RegionChanges { version: 9, rail: 0, change: Change::Add, entries: vec![first, second] };
    let bytes = hex("09 00 00 00 00 00 00 00 01 00 00 00 02 00 00 00
         08 00 00 00 00 00 00 00 00 10 00 00 00 00 00 00 00 10 00 00 00 00 00 00 00 00 00 00 08 00 01 00 04 00 07 00 00 00
         09 00 00 00 00 00 00 00 00 90 00 00 00 00 00 00 10 00 00 00 00 00 00 00 00 00 00 00 08 00 01 00 04 00 08 00 00 00");
    assert_eq!(added.encode(), bytes);
    assert_eq!(RegionChanges::decode(&bytes), Ok(added));
    let gone = AnnouncedRegion { flags: AnnouncedRegion::KEY_IN_USE, ..first };
    let removed = RegionChanges { version: 10, rail: 0, change: Change::Remove, entries: vec![gone] };
    let bytes = hex("0a 00 00 00 00 00 00 00 03 00 00 00 01 00 00 00
         08 00 00 00 00 00 00 00 00 10 00 00 00 00 00 00 00 10 00 00 00 00 00 00 01 00 00 00 08 00 01 00 04 00 07 00 00 00");
    assert_eq!(removed.encode(), bytes);
    assert_eq!(RegionChanges::decode(&bytes), Ok(removed));
    let reset = RegionChanges { version: 10, rail: 0, change: Change::Reset, entries: Vec::new() };
    let bytes = hex("0a 00 00 00 00 00 00 00 04 00 00 00 00 00 00 00");
    assert_eq!(reset.encode(), bytes);
    assert_eq!(RegionChanges::decode(&bytes), Ok(reset));
}

/// A later version may add attributes of a region; known ones are still found.
#[test]
fn unknown_attributes_of_a_region_are_skipped() {
    let region = "01 00 00 00 00 00 00 00 00 10 00 00 00 00 00 00 10 00 00 00 00 00 00 00 00 00 00 80";
    let header = "05 00 00 00 00 00 00 00 02 00 00 00 01 00 00 00";
    for (attributes, rkey) in [
        ("0f 00 4d 00 03 00 61 62 63 01 00 04 00 05 00 00 00", Some(5)),
        ("10 00 01 00 04 00 05 00 00 00 01 00 04 00 06 00 00 00", Some(5)),
        ("04 00 ff ff 00 00", None),
        ("00 00", None),
    ] {
        let changes = RegionChanges::decode(&hex(&format!("{header} {region} {attributes}"))).unwrap();
        let expected =
            AnnouncedRegion { id: 1, base: 0x1000, size: 16, flags: 0x8000_0000, rkey, first_rkey: None };
        assert_eq!((changes.change, changes.entries), (Change::Update, vec![expected]), "{attributes}");
    }
    for attributes in
        ["01 00", "05 00 01 00 04 00 05", "04 00 01 00 09 00", "06 00 01 00 02 00 05 00", "03 00 00 00 00"]
    {
        assert!(
            RegionChanges::decode(&hex(&format!("{header} {region} {attributes}"))).is_err(),
            "{attributes}"
        );
    }
}

#[test]
fn malformed_region_changes_are_refused() {
    let entry =
        AnnouncedRegion { id: 8, base: 0x1000, size: 0x1000, flags: 0, rkey: Some(7), first_rkey: None };
    let bytes =
        |entry| RegionChanges { version: 1, rail: 0, change: Change::Add, entries: vec![entry] }.encode();
    let good = bytes(entry);
    let problem = |bytes: &[u8]| RegionChanges::decode(bytes).unwrap_err().problem;
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    assert!(problem(&with(15, 0xff)).contains("entries in 38 bytes"), "an absurd count");
    assert!(problem(&with(12, 2)).contains("2 entries in 38 bytes"));
    assert!(problem(&with(12, 0)).contains("38 bytes behind"));
    assert!(problem(&with(8, 5)).contains("change 5"));
    assert!(problem(&with(8, 4)).contains("1 entries"), "a reset has no entries");
    assert!(problem(&bytes(AnnouncedRegion { id: 0, ..entry })).contains("region 0"));
    assert!(problem(&bytes(AnnouncedRegion { base: u64::MAX, ..entry })).contains("wraps"));
    assert!(problem(&good[..10]).contains("10 bytes"));
    assert!(
        RegionChanges {
            version: 1,
            rail: 0,
            change: Change::Add,
            entries: vec![entry; RegionChanges::MAX_ENTRIES]
        }
        .encode()
        .len()
            <= MAX_REGION_CHANGES
    );
}

fn qp_address() -> QpAddress {
    QpAddress {
        qpn: 0x0001_0203,
        gid: Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0xc000, 0x0202).octets(),
        port: 1,
        link_layer: 2,
        lid: 0x0405,
        mtu: 5,
    }
}

#[test]
fn lane_record_bytes() {
    let original = LaneRecord { address: qp_address(), capabilities: None };
    let bytes =
        hex("03 02 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 ff ff c0 00 02 02 01 02 00 00 05 04 00 00
         05 00 00 00 00 00 00 00");
    assert_eq!(original.encode().as_slice(), bytes);
    assert_eq!(LaneRecord::decode(&bytes), Ok(original));

    let capabilities = LaneCapabilities { rd_atomic_initiator: 16, rd_atomic_responder: 32 };
    let ours = LaneRecord { address: qp_address(), capabilities: Some(capabilities) };
    let encoded = ours.encode();
    assert_eq!(encoded[4..8], hex("46 50 10 20"));
    assert_eq!(encoded[36..], hex("b9 af ef df"));
    assert_eq!(LaneRecord::decode(&encoded), Ok(ours));
    for mtu in [0, 6, -1] {
        let mut wrong = encoded;
        wrong[32..36].copy_from_slice(&i32::to_le_bytes(mtu));
        assert!(LaneRecord::decode(&wrong).is_err(), "{mtu}");
    }
}

#[test]
fn notification_bytes() {
    assert_eq!(notification::Header::Message.encode().as_slice(), hex("ad de ad de 00 00 00 00"));
    assert_eq!(notification::MESSAGE_SIZE, 520);
    let header = notification::Header::decode(&hex("ad de ad de 01 02 03 04"));
    assert_eq!(header, Ok(notification::Header::Message));
    assert!(notification::Header::decode(&hex("ad de ad df 00 00 00 00")).is_err());
    let owner = notification::Header::Owner(0x0001_0203);
    assert_eq!(owner.encode().as_slice(), hex("0d 9d ad de 03 02 01 00"));
    assert_eq!(notification::Header::decode(&owner.encode()), Ok(owner));
    let mut body = vec![1; 256];
    body.extend([2; 256]);
    assert_eq!(notification::decode_message(&body), Ok(([1; 256], [2; 256])));
}

prop_compose! {
    fn any_address()(v4: bool, octets: [u8; 16], port: u16, scope: u32) -> SocketAddr {
        if v4 {
            SocketAddr::from((Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]), port))
        } else {
            SocketAddrV6::new(octets.into(), port, 0, scope).into()
        }
    }
}

proptest! {
    #[test]
    fn handles_survive(
        address in any_address(),
        nonce: [u8; 16],
        (bits, max_notification) in any::<(u32, u32)>(),
        (incarnation, process, host) in any::<(u64, u64, u64)>(),
        (pid, fingerprint) in any::<(u32, u64)>(),
    ) {
        let identity = ProcessIdentity { pid, fingerprint };
        let features = Some(Features { bits, max_notification, incarnation, process, nonce, host, identity });
        let handle = Handle { address, features };
        prop_assert_eq!(Handle::decode(&handle.encode()), Ok(handle));
    }

    #[test]
    fn lane_records_survive(
        (qpn, gid, lid) in any::<(u32, [u8; 16], u32)>(),
        (port, link_layer) in any::<(u8, u8)>(),
        mtu in 1u8..=5,
        pads: Option<(u8, u8)>,
    ) {
        let capabilities = pads.map(|(rd_atomic_initiator, rd_atomic_responder)| LaneCapabilities {
            rd_atomic_initiator,
            rd_atomic_responder,
        });
        let record = LaneRecord { address: QpAddress { qpn, gid, port, link_layer, lid, mtu }, capabilities };
        prop_assert_eq!(LaneRecord::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn region_tables_survive(entries in proptest::collection::vec((any::<[u32; 3]>(), 0..RegionEntry::ID_LIMIT, any::<[bool; 3]>()), 0..100)) {
        let regions: Vec<_> = entries
            .into_iter()
            .map(|([base, size, rkey], id, [read_only, gpu_flush, continues])| RegionEntry {
                base: base.into(), size: size.into(), rkey, id, read_only, gpu_flush, continues,
            })
            .collect();
        prop_assert_eq!(decode_regions(&encode_regions(&regions)), Ok(regions));
    }

    #[test]
    fn region_changes_survive(
        version: u64,
        rail in 0u8..8,
        change in 1u8..4,
        entries in proptest::collection::vec((1u64.., any::<u32>(), any::<u32>(), any::<u32>(), any::<[Option<u32>; 2]>()), 0..50),
    ) {
        let change = [Change::Add, Change::Update, Change::Remove][usize::from(change) - 1];
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(id, base, size, flags, [rkey, first_rkey])| AnnouncedRegion { id, base: base.into(), size: size.into(), flags, rkey, first_rkey })
            .collect();
        let changes = RegionChanges { version, rail, change, entries };
        prop_assert_eq!(RegionChanges::decode(&changes.encode()), Ok(changes));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = SocketKind::decode(&bytes);
        let _ = decode_address(&bytes);
        let _ = Features::decode(&bytes);
        let _ = Handle::decode(&bytes);
        let _ = FrameHeader::decode(&bytes).map(|header| header.expect(Tag::Regions, 1000));
        let _ = ControlMeta::decode(&bytes);
        let _ = decode_regions(&bytes);
        let _ = RegionChanges::decode(&bytes);
        let _ = LaneRecord::decode(&bytes);
        let _ = notification::Header::decode(&bytes).map(notification::Header::body_size);
        let _ = notification::decode_message(&bytes);
    }
}
