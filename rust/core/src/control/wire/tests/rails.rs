//! What the control channel says of rails: the NICs of an engine, and changes of the regions of one rail.

use super::*;

fn nic(name: &str, networks: &[&str]) -> NicRecord {
    let networks = networks.iter().map(|text| text.parse().unwrap()).collect();
    NicRecord { speed_mbps: 400_000, link_layer: 2, mtu: 5, name: name.to_owned(), networks }
}

/// The example of `docs/design.md`.
const LIST: &str = "01 00 02 00 00 00 00 00
    10 00 01 04 00 00 00 00 06 00 6d 6c 78 35 5f 30
    34 00 02 05 80 1a 06 00 06 02 6d 6c 78 35 5f 31
    04 18 c0 00 02 07 00 00 00 00 00 00 00 00 00 00 00 00
    06 40 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01";

fn list() -> NicList {
    let infiniband = NicRecord { speed_mbps: 0, link_layer: 1, mtu: 4, ..nic("mlx5_0", &[]) };
    NicList::new(1, vec![infiniband, nic("mlx5_1", &["192.0.2.7/24", "2001:db8::1/64"])]).unwrap()
}

fn problem(bytes: &[u8]) -> String {
    NicList::decode(bytes).unwrap_err().problem
}

#[test]
fn nic_list_bytes() {
    assert_eq!(list().encode(), hex(LIST));
    let read = NicList::decode(&hex(LIST)).unwrap();
    assert_eq!(read, list());
    assert_eq!((read.own(), read.nics().len()), (1, 2));
    assert_eq!(read.get(1).map(|nic| nic.name.as_str()), Some("mlx5_1"));
    assert_eq!(read.get(2), None);
    assert_eq!(
        read.ends()[1].networks,
        [("192.0.2.7/24"), "2001:db8::1/64"].map(|text| text.parse().unwrap())
    );
}

/// A later version may lengthen each NIC, and the list.
#[test]
fn what_a_later_version_appends_to_nics_is_skipped() {
    let mut longer = hex(LIST);
    longer.splice(24..24, [7; 5]);
    longer[8] += 5;
    longer.extend([9; 100]);
    assert_eq!(NicList::decode(&longer), Ok(list()));
    let end = longer.len() - 100;
    longer.splice(end..end, [8; 300]);
    longer[29..31].copy_from_slice(&352_u16.to_le_bytes());
    assert_eq!(NicList::decode(&longer), Ok(list()));
}

#[test]
fn the_largest_list_fits_and_no_larger_one_is_written() {
    let name = "n".repeat(MAX_NIC_NAME);
    let networks = ["10.0.0.1/8"; MAX_NIC_NETWORKS + 1];
    let list = NicList::new(MAX_NICS - 1, vec![nic(&name, &networks); MAX_NICS + 9]).unwrap();
    assert_eq!((list.nics().len(), list.nics()[0].networks.len()), (MAX_NICS, MAX_NIC_NETWORKS));
    assert_eq!(list.encode().len(), 2344);
    assert_eq!(NicList::decode(&list.encode()), Ok(list));
    let same = NicList::new(0, vec![nic("", &[]), nic("", &[])]).unwrap();
    assert_eq!(NicList::decode(&same.encode()), Ok(same), "names say nothing, and may be the same");

    let refused = |own, nics: &[NicRecord]| NicList::new(own, nics.to_vec()).unwrap_err().problem;
    assert!(refused(0, &[]).contains("NIC 0 is that of the first rail, of 0 NICs"));
    assert!(refused(MAX_NICS, &vec![nic("a", &[]); 20]).contains("of 16 NICs"));
    assert!(refused(0, &[nic(&"n".repeat(65), &[])]).contains("a name of 65 bytes, expected at most 64"));
    assert!(refused(0, &[nic("a\nb", &[])]).contains(r#"the name "a\nb" has control characters"#));
    assert!(
        refused(0, &[NicRecord { mtu: 6, ..nic("a", &[]) }]).contains("path MTU code 6, expected 1 to 5")
    );
}

#[test]
fn malformed_lists_of_nics_are_refused() {
    let with = |at: usize, byte: u8| {
        let mut bytes = hex(LIST);
        bytes[at] = byte;
        problem(&bytes)
    };
    for (at, byte, named) in [
        (0, 2, "NIC 2 is that of the first rail, of 2 NICs"),
        (2, 17, "17 NICs, expected at most 16"),
        (2, 3, "0 bytes, expected 10"),
        (8, 9, "9 bytes, expected 10"),
        (9, 1, "ends within a NIC of 272 bytes"),
        (11, 0, "path MTU code 0"),
        (16, 7, "ends within the name of a NIC"),
        (18, 0xff, "invalid utf-8"),
        (18, 0x1b, "control characters"),
        (33, 5, "5 networks of a NIC, expected at most 4"),
        (33, 3, "ends within the networks of a NIC"),
        (40, 5, "family 5, expected 4 or 6"),
        (41, 33, "the prefix length 33 of 192.0.2.7"),
        (59, 129, "the prefix length 129 of 2001:db8::1"),
    ] {
        let found = with(at, byte);
        assert!(found.contains(named), "byte {at}: {found}");
    }
    let good = hex(LIST);
    for length in 0..good.len() {
        assert!(NicList::decode(&good[..length]).is_err(), "{length} bytes");
    }
    let error = NicList::decode(&[]).unwrap_err().to_string();
    assert_eq!(error, "malformed list of NICs: 0 bytes, expected 8");
}

#[test]
fn changes_of_a_rail_have_its_number() {
    let entry =
        AnnouncedRegion { id: 8, base: 0x1000, size: 0x1000, flags: 0, rkey: Some(7), first_rkey: None };
    let changes = RegionChanges { version: 9, rail: 3, change: Change::Add, entries: vec![entry] };
    let bytes = hex("09 00 00 00 00 00 00 00 01 03 00 00 01 00 00 00
         08 00 00 00 00 00 00 00 00 10 00 00 00 00 00 00 00 10 00 00 00 00 00 00 00 00 00 00 08 00 01 00 04 00 07 00 00 00");
    assert_eq!(changes.encode(), bytes);
    assert_eq!(RegionChanges::decode(&bytes), Ok(changes.clone()));
    let first = RegionChanges { rail: 0, ..changes };
    assert_eq!(first.encode()[9], 0, "as without rails");
    for rail in [8, 255] {
        let mut bytes = bytes.clone();
        bytes[9] = rail;
        let problem = RegionChanges::decode(&bytes).unwrap_err().problem;
        assert_eq!(problem, format!("rail {rail}, expected 0 to 7"));
    }
}

/// Of a further rail, the key of the same memory on the first one: descriptors have that.
#[test]
fn an_entry_of_a_rail_has_the_key_of_the_first() {
    let entry = AnnouncedRegion {
        id: 8,
        base: 0x1000,
        size: 0x1000,
        flags: 0,
        rkey: Some(7),
        first_rkey: Some(0x0102),
    };
    let changes = |entries| RegionChanges { version: 9, rail: 1, change: Change::Add, entries };
    let header = "09 00 00 00 00 00 00 00 01 01 00 00 01 00 00 00
        08 00 00 00 00 00 00 00 00 10 00 00 00 00 00 00 00 10 00 00 00 00 00 00 00 00 00 00";
    let read = |attributes: &str| RegionChanges::decode(&hex(&format!("{header} {attributes}")));
    let written = "10 00 01 00 04 00 07 00 00 00 02 00 04 00 02 01 00 00";
    assert_eq!(changes(vec![entry]).encode(), hex(&format!("{header} {written}")));
    assert_eq!(read(written), Ok(changes(vec![entry])));
    let other_order = "14 00 02 00 04 00 02 01 00 00 63 00 00 00 01 00 04 00 07 00 00 00";
    assert_eq!(read(other_order), Ok(changes(vec![entry])));
    let alone = AnnouncedRegion { rkey: None, ..entry };
    assert_eq!(read("08 00 02 00 04 00 02 01 00 00"), Ok(changes(vec![alone])));
    let problem = read("07 00 02 00 03 00 02 01 00").unwrap_err().problem;
    assert_eq!(problem, "a key of 3 bytes, expected 4");
    let most = changes(vec![entry; RegionChanges::MAX_ENTRIES_OF_RAIL]).encode();
    assert!((MAX_REGION_CHANGES - 46..=MAX_REGION_CHANGES).contains(&most.len()), "{}", most.len());
}

#[test]
fn rails_need_the_channel_rebuilds_and_regions() {
    let needed = [Features::RAILS, Features::CHANNEL, Features::REBUILD, Features::REGIONS];
    assert_eq!(Features::RAILS, 512);
    let all = needed.iter().fold(0, |all, bit| all | bit);
    assert!(Features { bits: all | Features::AUTH, ..Features::default() }.has_rails());
    for bit in needed {
        assert!(!Features { bits: all & !bit, ..Features::default() }.has_rails());
    }
    assert_eq!(Features::OTHER_PAIRS, 4096);
    let of_one_nic = Features { bits: all & !Features::RAILS | Features::OTHER_PAIRS, ..Features::default() };
    assert!(of_one_nic.has_other_pairs() && !of_one_nic.has_rails(), "an earlier release makes none with it");
    assert!(!Features { bits: all, ..Features::default() }.has_other_pairs());
    assert_eq!(Features::LANES_ON_USE, 8192);
}

proptest! {
    #[test]
    fn lists_of_nics_survive(
        own: prop::sample::Index,
        nics in prop::collection::vec(
            (any::<u32>(), any::<u8>(), 1u8..6, "[^\\p{Cc}]{0,16}", prop::collection::vec((any::<std::net::IpAddr>(), 0u8..=32), 0..5)), 1..17),
        appended in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let nics: Vec<_> = nics
            .into_iter()
            .map(|(speed_mbps, link_layer, mtu, name, networks)| NicRecord {
                speed_mbps,
                link_layer,
                mtu,
                name,
                networks: networks.into_iter().map(|(address, prefix)| ipnet::IpNet::new(address, prefix).unwrap()).collect(),
            })
            .collect();
        let list = NicList::new(own.index(nics.len()), nics).unwrap();
        let mut bytes = list.encode();
        bytes.extend(appended);
        prop_assert!(bytes.len() <= MAX_NIC_LIST);
        prop_assert_eq!(NicList::decode(&bytes), Ok(list));
    }

    #[test]
    fn arbitrary_lists_of_nics_never_panic(bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
        let _ = NicList::decode(&bytes);
        let mut near = hex(LIST);
        let at = at.index(near.len());
        near[at] = byte;
        if let Ok(list) = NicList::decode(&near) {
            prop_assert_eq!(NicList::decode(&list.encode()), Ok(list));
        }
    }
}
