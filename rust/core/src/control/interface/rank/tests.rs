use proptest::prelude::*;

use super::*;
use crate::config::NameList;

fn interface(name: &str, network: &str) -> Interface {
    let kind = if name == "lo" { Kind::Loopback } else { Kind::Ordinary };
    Interface { kind, ..Interface::new(name, network.parse().unwrap()) }
}

fn list(entries: &[(&str, &str)]) -> Vec<Interface> {
    entries.iter().map(|(name, network)| interface(name, network)).collect()
}

fn best(interfaces: &[Interface], rules: &InterfaceRules) -> Option<(String, Preference)> {
    let first = *rank_interfaces(interfaces, rules).first()?;
    Some((first.interface.network.addr().to_string(), first.choice.ok()?))
}

fn chosen(entries: &[(&str, &str)], rules: &InterfaceRules) -> Option<String> {
    best(&list(entries), rules).map(|(address, _)| address)
}

fn no_rules() -> InterfaceRules {
    InterfaceRules::default()
}

fn named(names: &str) -> InterfaceRules {
    InterfaceRules { names: Some(NameList::parse(names)), ..no_rules() }
}

const HOST: &[(&str, &str)] = &[
    ("lo", "127.0.0.1/8"),
    ("docker0", "172.17.0.1/16"),
    ("eth0", "192.0.2.7/24"),
    ("eth1", "198.51.100.7/24"),
    ("lo", "::1/128"),
    ("eth0", "fe80::7/64"),
    ("eth1", "2001:db8::7/64"),
];

/// What the original engine chooses of interfaces that are all up, and without a default route.
#[test]
fn the_order_of_the_original() {
    assert_eq!(chosen(HOST, &no_rules()).unwrap(), "192.0.2.7");
    let with_ib = [HOST, &[("ib0", "203.0.113.7/24")]].concat();
    assert_eq!(chosen(&with_ib, &no_rules()).unwrap(), "203.0.113.7");
    assert_eq!(chosen(&HOST[..2], &no_rules()).unwrap(), "172.17.0.1");
    assert_eq!(chosen(&HOST[..1], &no_rules()).unwrap(), "127.0.0.1");
    assert_eq!(chosen(&HOST[4..6], &no_rules()), None);
    assert_eq!(chosen(&[], &no_rules()), None);
}

#[test]
fn rules_restrict_the_choice() {
    assert_eq!(chosen(HOST, &named("eth1")).unwrap(), "198.51.100.7");
    assert_eq!(chosen(HOST, &named("^eth,docker")).unwrap(), "127.0.0.1");
    assert_eq!(chosen(HOST, &named("=eth")), None);
    let family = |family| InterfaceRules { family: Some(family), ..no_rules() };
    assert_eq!(chosen(HOST, &family(AddressFamily::V6)).unwrap(), "2001:db8::7");
    assert_eq!(chosen(HOST, &family(AddressFamily::V4)).unwrap(), "192.0.2.7");
    let near = InterfaceRules { near: Some("198.51.100.99".parse().unwrap()), ..no_rules() };
    assert_eq!(chosen(HOST, &near).unwrap(), "198.51.100.7");
}

#[test]
fn an_interface_that_carries_nothing_is_never_chosen() {
    for link in [LinkState::Down, LinkState::NoCarrier, LinkState::NotRunning] {
        let mut host = list(&[("eth0", "192.0.2.7/24"), ("eth1", "198.51.100.7/24")]);
        host[0].link = link;
        host[0].default_v4 = Some(0);
        assert_eq!(best(&host, &no_rules()), Some(("198.51.100.7".into(), Preference::Ordinary)));
        assert_eq!(best(&host, &named("eth")), Some(("198.51.100.7".into(), Preference::Named)));
        assert_eq!(best(&host, &named("eth0")), None);
        let ranked = rank_interfaces(&host, &named("eth0"));
        assert!(ranked.iter().any(|one| one.choice == Err(Exclusion::Link(link))), "{ranked:?}");
    }
}

#[test]
fn the_default_route_comes_before_list_order_and_bridges() {
    let mut host = list(&[("br0", "10.0.0.1/24"), ("eth0", "192.0.2.7/24"), ("eth1", "198.51.100.7/24")]);
    host[0].kind = Kind::Bridge;
    host[2].default_v4 = Some(100);
    assert_eq!(best(&host, &no_rules()), Some(("198.51.100.7".into(), Preference::DefaultRoute)));
    host[1].default_v4 = Some(20);
    assert_eq!(
        best(&host, &no_rules()),
        Some(("192.0.2.7".into(), Preference::DefaultRoute)),
        "smaller metric"
    );
    // The host of virtual machines: its uplink is a port of the bridge, which has the address.
    host[1].default_v4 = None;
    host[2].default_v4 = None;
    host[0].default_v4 = Some(0);
    assert_eq!(best(&host, &no_rules()), Some(("10.0.0.1".into(), Preference::DefaultRoute)));
    host[0].default_v4 = None;
    assert_eq!(best(&host, &no_rules()), Some(("192.0.2.7".into(), Preference::Ordinary)));
}

#[test]
fn tunnels_come_after_ordinary_interfaces_and_link_local_addresses_after_bridges() {
    let mut host = list(&[("eth0", "169.254.7.7/16"), ("br1", "10.0.0.1/24"), ("tun0", "10.8.0.2/24")]);
    host[0].default_v4 = Some(0);
    host[1].kind = Kind::Bridge;
    host[2].kind = Kind::Tunnel;
    host.push(interface("eth1", "192.0.2.7/24"));
    host.push(interface("lo", "127.0.0.1/8"));
    let order: Vec<_> = rank_interfaces(&host, &no_rules()).iter().map(|one| one.choice.unwrap()).collect();
    assert_eq!(
        order,
        [
            Preference::Ordinary,
            Preference::Tunnel,
            Preference::Bridge,
            Preference::LinkLocal,
            Preference::Loopback
        ]
    );
}

#[test]
fn the_default_route_counts_for_the_wanted_family() {
    let mut host = list(&[
        ("eth0", "192.0.2.7/24"),
        ("eth1", "198.51.100.7/24"),
        ("eth0", "2001:db8:1::7/64"),
        ("eth1", "2001:db8:2::7/64"),
    ]);
    for one in &mut host {
        match one.name.as_str() {
            "eth0" => one.default_v4 = Some(100),
            _ => one.default_v6 = Some(10),
        }
    }
    let family = |family| InterfaceRules { family, ..no_rules() };
    assert_eq!(best(&host, &family(None)).unwrap().0, "192.0.2.7");
    assert_eq!(best(&host, &family(Some(AddressFamily::V6))).unwrap().0, "2001:db8:2::7");
}

fn described() -> impl Strategy<Value = Interface> {
    let name = prop::sample::select(vec!["lo", "eth0", "eth1", "ib0", "docker0", "br0", "tun0"]);
    let network = prop::sample::select(vec![
        "127.0.0.1/8",
        "192.0.2.7/24",
        "169.254.1.1/16",
        "::1/128",
        "fe80::1/64",
        "2001:db8::1/64",
    ]);
    let link = prop::sample::select(vec![
        LinkState::Up,
        LinkState::Down,
        LinkState::NoCarrier,
        LinkState::NotRunning,
    ]);
    let kind = prop::sample::select(vec![Kind::Ordinary, Kind::Bridge, Kind::Tunnel, Kind::Loopback]);
    (name, network, link, kind, any::<Option<u32>>(), any::<Option<u32>>()).prop_map(
        |(name, network, link, kind, default_v4, default_v6)| Interface {
            link,
            kind,
            default_v4,
            default_v6,
            ..Interface::new(name, network.parse().unwrap())
        },
    )
}

proptest! {
    /// Whatever the host, and whatever the names.
    #[test]
    fn the_choice_is_usable_and_the_best(
        host in prop::collection::vec(described(), 0..8),
        names in prop::option::of(prop::sample::select(vec!["eth", "=lo", "^docker", "ib,tun"])),
    ) {
        let rules = InterfaceRules { names: names.map(NameList::parse), ..InterfaceRules::default() };
        let ranked = rank_interfaces(&host, &rules);
        prop_assert_eq!(ranked.len(), host.len());
        let fit = |one: &Interface| {
            let address = one.network.addr();
            let v6 = matches!(address, IpAddr::V6(v6) if v6.is_loopback() || v6.is_unicast_link_local());
            one.link == LinkState::Up && !v6 && rules.names.as_ref().is_none_or(|names| names.matches(&one.name, None))
        };
        prop_assert_eq!(ranked.iter().filter(|one| one.choice.is_ok()).count(), host.iter().filter(|one| fit(one)).count());
        prop_assert!(ranked.iter().all(|one| one.choice.is_ok() == fit(one.interface)));
        // What fits stands before what does not, and a better reason before a worse one.
        prop_assert!(ranked.is_sorted_by_key(|one| one.choice.map_or((1, None), |reason| (0, Some(reason)))));
    }

    /// An address that is added changes nothing unless it is chosen itself.
    #[test]
    fn a_worse_address_changes_nothing(host in prop::collection::vec(described(), 1..8), more in described()) {
        let before = rank_interfaces(&host, &InterfaceRules::default())[0];
        let with = [host.clone(), vec![more.clone()]].concat();
        let after = rank_interfaces(&with, &InterfaceRules::default())[0];
        prop_assert!(after.choice.is_err() || after.interface == before.interface || *after.interface == more);
    }
}
