//! The interfaces of the default routes, as `/proc/net` lists them.

use std::collections::HashMap;

/// Metrics of the default routes, by the interface that they leave through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DefaultRoutes {
    pub(super) v4: HashMap<String, u32>,
    pub(super) v6: HashMap<String, u32>,
}

/// The default routes of `/proc/net/route`. Lines that are not a route count for nothing.
pub(super) fn parse_v4(table: &str) -> HashMap<String, u32> {
    smallest(table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().take(8).collect();
        let [name, "00000000", _, flags, _, _, metric, "00000000"] = fields[..] else { return None };
        leads_out(flags)?;
        Some((name, metric.parse().ok()?))
    }))
}

/// The default routes of `/proc/net/ipv6_route`. Lines that are not a route count for nothing.
pub(super) fn parse_v6(table: &str) -> HashMap<String, u32> {
    smallest(table.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().take(10).collect();
        let [ANY_V6, "00", ANY_V6, "00", _, metric, _, _, flags, name] = fields[..] else { return None };
        leads_out(flags)?;
        Some((name, u32::from_str_radix(metric, 16).ok()?))
    }))
}

/// Up, and not a reject route.
fn leads_out(flags: &str) -> Option<()> {
    let flags = u32::from_str_radix(flags, 16).ok()?;
    (flags & RTF_UP != 0 && flags & RTF_REJECT == 0).then_some(())
}

fn smallest<'a>(routes: impl Iterator<Item = (&'a str, u32)>) -> HashMap<String, u32> {
    let mut metrics = HashMap::new();
    for (name, metric) in routes {
        let known = metrics.entry(name.to_owned()).or_insert(metric);
        *known = metric.min(*known);
    }
    metrics
}

const RTF_UP: u32 = 1;
const RTF_REJECT: u32 = 0x200;
const ANY_V6: &str = "00000000000000000000000000000000";

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t00000000\t010200C0\t0003\t0\t0\t20\t00000000\t0\t0\t0
wlan0\t00000000\t010200C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
tun0\t00000000\t0108000A\t0003\t0\t0\t0\t00000080\t0\t0\t0
eth1\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
";

    #[test]
    fn default_routes_are_distinguished_from_others() {
        let found = parse_v4(V4);
        assert_eq!(found, HashMap::from([("eth0".to_owned(), 20), ("wlan0".to_owned(), 600)]));
    }

    #[test]
    fn default_routes_of_ipv6_are_told_from_rejecting_ones() {
        let next = "fe800000000000000000000000000001";
        let table = format!(
            "{ANY_V6} 00 {ANY_V6} 00 {next} 00000400 00000001 00000000 00450003     eth0\n\
             {ANY_V6} 00 {ANY_V6} 00 {ANY_V6} ffffffff 00000001 00000000 00200200       lo\n\
             20010db8000000000000000000000000 40 {ANY_V6} 00 {ANY_V6} 00000100 00000001 00000000 00000001 eth1\n"
        );
        assert_eq!(parse_v6(&table), HashMap::from([("eth0".to_owned(), 0x400)]));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String) {
            proptest::prop_assert!(parse_v4(&text).len() <= text.len());
            proptest::prop_assert!(parse_v6(&text).len() <= text.len());
        }

        #[test]
        fn a_damaged_table_gives_no_interface_that_it_does_not_name(at in 0..V4.len(), byte in 0u8..128) {
            let mut bytes = V4.as_bytes().to_vec();
            bytes[at] = byte;
            let text = String::from_utf8(bytes).unwrap();
            for name in parse_v4(&text).keys() {
                proptest::prop_assert!(text.contains(name.as_str()));
            }
        }
    }
}
