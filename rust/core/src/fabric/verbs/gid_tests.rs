//! GID tables of real machines, among them ones from which other engines choose a wrong entry.

use super::*;
use crate::fabric::LINK_ETHERNET;

fn preference(options: &VerbsOptions) -> GidPreference {
    GidPreference::from_options(options).unwrap()
}

fn table(entries: &[(u8, &str, Option<u8>)]) -> Vec<Candidate> {
    entries
        .iter()
        .map(|&(index, address, roce_version)| GidEntry {
            index,
            gid: address.parse::<Ipv6Addr>().unwrap().octets(),
            roce_version,
            netdev: Some("eth0".to_owned()),
        })
        .map(|entry| Candidate { entry, standing: Standing::Here })
        .collect()
}

fn choose(options: &VerbsOptions, table: &[Candidate]) -> Result<GidChoice, FabricError> {
    preference(options).choose("mlx5_0 port 1", LINK_ETHERNET, 16, table, |_| Trial::Unknown)
}

/// [`USUAL`] with the standing of each entry, chosen from with a device that makes addresses from `passing` only.
fn choose_among(standings: [Standing; 4], passing: &[u8]) -> GidChoice {
    let mut table = table(USUAL);
    for (candidate, standing) in table.iter_mut().zip(standings) {
        candidate.standing = standing;
    }
    let trial = |entry: &GidEntry| match passing.contains(&entry.index) {
        true => Trial::Passed,
        false => Trial::Refused(libc::EINVAL),
    };
    preference(&VerbsOptions::default()).choose("mlx5_0 port 1", LINK_ETHERNET, 16, &table, trial).unwrap()
}

fn index(options: &VerbsOptions, entries: &[(u8, &str, Option<u8>)]) -> u8 {
    choose(options, &table(entries)).unwrap().index
}

/// The common table of a RoCE NIC with one IPv4 address.
const USUAL: &[(u8, &str, Option<u8>)] = &[
    (0, "fe80::5054:ff:fe12:3456", Some(1)),
    (1, "fe80::5054:ff:fe12:3456", Some(2)),
    (2, "::ffff:10.1.0.7", Some(1)),
    (3, "::ffff:10.1.0.7", Some(2)),
];

#[test]
fn routable_roce_v2_over_ipv4_by_default() {
    assert_eq!(index(&VerbsOptions::default(), USUAL), 3);
}

#[test]
fn preferences_are_honoured() {
    let v1 = VerbsOptions { roce_version: 1, ..VerbsOptions::default() };
    assert_eq!(index(&v1, USUAL), 2);
    let both = &[USUAL, &[(4, "2001:db8::7", Some(1)), (5, "2001:db8::7", Some(2))]].concat();
    assert_eq!(index(&VerbsOptions::default(), both), 3);
    let v6 = VerbsOptions { prefer_ipv6: true, ..VerbsOptions::default() };
    assert_eq!(index(&v6, both), 5);
}

#[test]
fn holes_and_odd_orders_do_not_matter() {
    // After an interface was reconfigured the old places stay empty and the new entries come in any order.
    let late = &[(0, "fe80::1", Some(1)), (6, "::ffff:10.1.0.7", Some(2)), (9, "::ffff:10.1.0.7", Some(1))];
    assert_eq!(index(&VerbsOptions::default(), late), 6);
    let v2_first = &[(0, "::ffff:10.1.0.7", Some(2)), (1, "fe80::1", Some(2))];
    assert_eq!(index(&VerbsOptions::default(), v2_first), 0);
}

#[test]
fn link_local_never_wins_over_an_address_that_reaches_further() {
    // Only IPv6 is set up, and IPv4 wanted: a global address still beats a link-local one of the wanted family.
    let v6_only = &[
        (0, "fe80::1", Some(1)),
        (1, "fe80::1", Some(2)),
        (2, "fd00:1::7", Some(1)),
        (3, "fd00:1::7", Some(2)),
    ];
    assert_eq!(index(&VerbsOptions::default(), v6_only), 3);
    let zeroconf =
        &[(0, "fe80::1", Some(2)), (1, "::ffff:169.254.3.4", Some(2)), (2, "2001:db8::7", Some(2))];
    assert_eq!(index(&VerbsOptions::default(), zeroconf), 2);
    // A link-local one of the wanted version does not beat a routable one of the other.
    let old = &[(0, "fe80::1", Some(2)), (1, "::ffff:10.1.0.7", Some(1))];
    let choice = choose(&VerbsOptions::default(), &table(old)).unwrap();
    assert_eq!(choice.index, 1);
    assert!(choice.reason.contains("RoCE v2 was wanted"), "{}", choice.reason);
}

#[test]
fn link_local_is_used_when_there_is_nothing_else_and_says_so() {
    let choice = choose(&VerbsOptions::default(), &table(&USUAL[..2])).unwrap();
    assert_eq!(choice.index, 1);
    assert!(choice.reason.contains("link-local"), "{}", choice.reason);
}

#[test]
fn soft_devices_on_the_loopback_interface() {
    assert_eq!(
        index(&VerbsOptions::default(), &[(0, "fe80::1", Some(2)), (1, "::ffff:127.0.0.1", Some(2))]),
        1
    );
}

#[test]
fn unknown_versions_are_tolerated() {
    // No sysfs: a container without it, or a stand-in library.
    assert_eq!(index(&VerbsOptions::default(), &[(0, "fe80::1", None), (1, "::ffff:10.1.0.7", None)]), 1);
    assert_eq!(
        index(&VerbsOptions::default(), &[(0, "::ffff:10.1.0.7", None), (1, "::ffff:10.1.0.7", Some(2))]),
        1
    );
}

#[test]
fn a_range_picks_among_several_networks() {
    let two = &[USUAL, &[(4, "::ffff:192.168.3.9", Some(1)), (5, "::ffff:192.168.3.9", Some(2))]].concat();
    let storage = VerbsOptions { address_range: "192.168.0.0/16".to_owned(), ..VerbsOptions::default() };
    assert_eq!(index(&storage, two), 5);
    assert_eq!(index(&VerbsOptions::default(), two), 3, "lowest index among equals");
    let nowhere = VerbsOptions { address_range: "172.16.0.0/12".to_owned(), ..VerbsOptions::default() };
    let error = choose(&nowhere, &table(two)).unwrap_err().to_string();
    for part in ["mlx5_0 port 1", "172.16.0.0/12", "::ffff:10.1.0.7 RoCE v2 on eth0", "FLAGCX_IB_ADDR_RANGE"]
    {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
}

#[test]
fn a_range_without_prefix_is_refused() {
    let options = VerbsOptions { address_range: "10.1.0.0".to_owned(), ..VerbsOptions::default() };
    let error = GidPreference::from_options(&options).unwrap_err().to_string();
    assert!(error.contains("address/prefix"), "{error}");
}

#[test]
fn a_set_index_is_used_as_it_is() {
    let options = VerbsOptions { gid_index: Some(0), ..VerbsOptions::default() };
    let choice = choose(&options, &table(USUAL)).unwrap();
    assert_eq!(choice.index, 0);
    assert!(choice.reason.contains("FLAGCX_IB_GID_INDEX"), "{}", choice.reason);
}

#[test]
fn a_set_index_must_exist() {
    for (wanted, why) in [(99, "ends at index 15"), (7, "is empty")] {
        let options = VerbsOptions { gid_index: Some(wanted), ..VerbsOptions::default() };
        let error = choose(&options, &table(USUAL)).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("0, 1, 2, 3"), "{error}");
    }
}

#[test]
fn infiniband_takes_the_first() {
    let entries = table(&[(0, "fe80::2:c903:0:1", Some(1)), (1, "fe80::2:c903:0:2", Some(1))]);
    let choice = infiniband(&entries);
    assert_eq!(choice.index, 0);
}

fn infiniband(table: &[Candidate]) -> GidChoice {
    let preference = preference(&VerbsOptions::default());
    preference.choose("mlx5_0 port 1", LINK_INFINIBAND, 8, table, |_| Trial::Unknown).unwrap()
}

#[test]
fn infiniband_prefers_the_gid_that_other_subnets_can_route_to() {
    let entries = table(&[(0, "fe80::2:c903:0:1", None), (1, "fec0:0:123:1:2:c903:0:1", None)]);
    assert_eq!(infiniband(&entries).index, 1);
}

#[test]
fn addresses_of_this_host_come_before_all_others() {
    use Standing::{Elsewhere, Gone, Here};
    let all = [0, 1, 2, 3];
    assert_eq!(choose_among([Here; 4], &all).index, 3);
    assert_eq!(choose_among([Here, Here, Here, Gone], &all).index, 2, "RoCE v1, but it exists");
    let choice = choose_among([Here, Here, Elsewhere, Elsewhere], &all);
    assert_eq!(choice.index, 1);
    // In a container that sees the host's device all are elsewhere: the usual order holds, and the reason says it.
    let choice = choose_among([Elsewhere; 4], &all);
    assert!(choice.index == 3 && choice.reason.contains("no interface of this host"), "{choice:?}");
    let choice = choose_among([Gone; 4], &all);
    assert!(choice.index == 3 && choice.reason.contains("is gone"), "{choice:?}");
}

#[test]
fn the_device_decides_among_the_candidates() {
    let choice = choose_among([Standing::Here; 4], &[0, 1, 2]);
    assert_eq!(choice.index, 2);
    assert!(choice.reason.contains("makes no address from [3]: Invalid argument"), "{}", choice.reason);
    let none = choose_among([Standing::Here; 4], &[]);
    assert_eq!(none.index, 3, "if it makes none, the ranking holds");
}

#[test]
fn an_empty_table_says_what_to_do() {
    let error = choose(&VerbsOptions::default(), &[]).unwrap_err().to_string();
    assert!(error.contains("empty GID table") && error.contains("address"), "{error}");
}
