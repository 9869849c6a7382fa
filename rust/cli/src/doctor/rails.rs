//! Rails: which NICs of this machine a connection may be spread over.

use flagcx_p2p::internals::config::Config;
use flagcx_p2p::internals::engine;
use flagcx_p2p::internals::fabric::{Device, LINK_ETHERNET, LINK_INFINIBAND, PortAttributes};
use flagcx_p2p::internals::topology::{Distance, HostTopology, NicPort};

use super::finding::Report;
use super::system::SystemRoot;
use super::topology::gpus;

/// The variable that bounds the rails of a connection.
const VARIABLE: &str = "FLAGCX_P2P_RAILS";

/// A NIC, as far as rails depend on it.
#[derive(Clone, Debug)]
struct RailNic {
    /// `mlx5_0:1`.
    name: String,
    /// What its driver says, or why it says nothing.
    port: Result<Link, String>,
    numa_node: Option<u32>,
    /// GPUs behind the same PCI switch or host bridge.
    near_gpus: Vec<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link {
    active: bool,
    /// In words.
    layer: &'static str,
    mtu: u32,
    speed_mbps: u32,
}

/// Reports the bound, and each NIC. Nothing where no device can be opened: the engine's section says so.
pub(super) fn report(config: &Config, root: &SystemRoot, report: &mut Report) {
    let Ok(list) = engine::devices(config) else { return };
    setting(config, report);
    let sysfs = root.sysfs();
    let ports = list.devices().iter().map(|device| port_of(&**device)).collect();
    let machine = HostTopology::read(&sysfs, &gpus(&sysfs), ports);
    let nic = |device: &dyn Device, place: usize| {
        let nic = machine.nics.get(place)?;
        let is_near = |gpu: &&_| machine.distance(gpu, nic) <= Distance::HostBridge;
        Some(RailNic {
            name: format!("{}:{}", nic.name, nic.port),
            port: device.port().map(link).map_err(|error| error.to_string()),
            numa_node: nic.place.node,
            near_gpus: machine.gpus.iter().filter(is_near).map(|gpu| gpu.index).collect(),
        })
    };
    let nics: Vec<_> =
        list.devices().iter().enumerate().filter_map(|(place, device)| nic(&**device, place)).collect();
    nics_in_words(&nics, !machine.gpus.is_empty(), config.rails, report);
}

/// What FLAGCX_P2P_RAILS says.
fn setting(config: &Config, report: &mut Report) {
    let mut set = config.settings().iter().filter(|setting| setting.text.is_some());
    let origin = if set.any(|setting| setting.variable.name == VARIABLE) { "set" } else { "the default" };
    let meaning = match config.rails {
        1 => "every connection has one rail, over the NIC of its engine".to_owned(),
        most => format!("a connection has at most {most} rails"),
    };
    report.ok("rails", VARIABLE, format!("{} ({origin}): {meaning}", config.rails));
}

fn port_of(device: &dyn Device) -> NicPort {
    let attributes = device.attributes();
    NicPort {
        name: attributes.name.clone(),
        port: attributes.port,
        speed_mbps: device.port().map_or(0, |port| port.speed_mbps),
        path: attributes.pci_path.as_ref().map(Into::into),
    }
}

fn link(port: PortAttributes) -> Link {
    let layer = match port.link_layer {
        LINK_INFINIBAND => "InfiniBand",
        LINK_ETHERNET => "Ethernet",
        _ => "software",
    };
    Link { active: port.active, layer, mtu: port.mtu, speed_mbps: port.speed_mbps }
}

fn nics_in_words(nics: &[RailNic], has_gpus: bool, most: usize, report: &mut Report) {
    for nic in nics {
        let name = nic.name.as_str();
        let link = match &nic.port {
            Ok(link) => link,
            Err(error) => {
                let action = "ibv_devinfo shows what the driver says";
                report.warn("rail-nic", name, format!("forms no rails: {error}"), action);
                continue;
            }
        };
        let found = [Some(link.in_words()), nic.place_in_words(has_gpus)];
        let found = found.into_iter().flatten().collect::<Vec<_>>().join(", ");
        if link.active {
            report.ok("rail-nic", name, format!("can form rails: port up, {found}"));
        } else {
            let action = "bring the link up, or name other devices in FLAGCX_IB_HCA";
            report.warn("rail-nic", name, format!("forms no rails: port down, {found}"), action);
        }
    }
    let links: Vec<_> =
        nics.iter().filter_map(|nic| nic.port.as_ref().ok()).filter(|link| link.active).collect();
    together(&links, most, report);
}

/// Whether the ports that are up go together, and are no more than a connection has rails, `most`.
fn together(links: &[&Link], most: usize, report: &mut Report) {
    let (id, subject, count) = ("rail-nics", "NICs for rails", links.len());
    let [first, rest @ ..] = links else { return };
    if rest.is_empty() {
        return report.ok(id, subject, "one: connections of this machine have one rail");
    }
    let all = |are_equal: fn(&Link, &Link) -> bool| rest.iter().all(|link| are_equal(first, link));
    let is_one_layer = all(|a, b| a.layer == b.layer);
    if !is_one_layer || !all(|a, b| a.mtu == b.mtu) {
        let what = if is_one_layer { "path MTU" } else { "link layer" };
        let action = "give the ports of both hosts the same, or leave some out by FLAGCX_IB_HCA: NICs of different link layers form no rail, and one of different MTUs takes the smaller one";
        return report.warn(id, subject, format!("{count}, not all with the same {what}"), action);
    }
    let speeds = if all(|a, b| a.speed_mbps == b.speed_mbps) {
        "all alike"
    } else {
        "of different speeds: faster ones get more"
    };
    let beyond =
        if count > most { format!("; a connection uses {most} of them at most") } else { String::new() };
    report.ok(id, subject, format!("{count}, {speeds}{beyond}"));
}

impl Link {
    fn in_words(&self) -> String {
        let Self { layer, mtu, speed_mbps, .. } = self;
        format!("{speed_mbps} Mbit/s, {layer}, path MTU {mtu}")
    }
}

impl RailNic {
    /// `None` where nothing is known.
    fn place_in_words(&self, has_gpus: bool) -> Option<String> {
        let node = self.numa_node.map(|node| format!("NUMA node {node}"));
        let gpus: Vec<_> = self.near_gpus.iter().map(ToString::to_string).collect();
        let gpus = match gpus.as_slice() {
            [] => has_gpus.then(|| "near no GPU".to_owned()),
            [one] => Some(format!("near GPU {one}")),
            many => Some(format!("near GPUs {}", many.join(", "))),
        };
        let known: Vec<_> = [node, gpus].into_iter().flatten().collect();
        (!known.is_empty()).then(|| known.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    const UP: Link = Link { active: true, layer: "InfiniBand", mtu: 4096, speed_mbps: 400_000 };

    fn nic(name: &str, port: Result<Link, String>, numa_node: Option<u32>, near_gpus: &[i32]) -> RailNic {
        RailNic { name: name.to_owned(), port, numa_node, near_gpus: near_gpus.to_vec() }
    }

    fn lines(nics: &[RailNic], has_gpus: bool) -> Vec<(Level, String)> {
        let mut found = Report::default();
        nics_in_words(nics, has_gpus, 8, &mut found);
        found.findings().map(|finding| (finding.level, finding.to_string())).collect()
    }

    #[test]
    fn each_nic_says_whether_it_forms_rails() {
        let down = Link { active: false, layer: "Ethernet", ..UP };
        let nics = [
            nic("mlx5_0:1", Ok(UP), Some(1), &[2, 3]),
            nic("mlx5_1:1", Ok(down), None, &[]),
            nic("mlx5_2:1", Err("query_port: EIO (5)".to_owned()), Some(0), &[0]),
        ];
        let expected = [
            (
                Level::Ok,
                "mlx5_0:1: can form rails: port up, 400000 Mbit/s, InfiniBand, path MTU 4096, NUMA node 1, near GPUs 2, 3",
            ),
            (
                Level::Warn,
                "mlx5_1:1: forms no rails: port down, 400000 Mbit/s, Ethernet, path MTU 4096, near no GPU; bring the link up, or name other devices in FLAGCX_IB_HCA",
            ),
            (
                Level::Warn,
                "mlx5_2:1: forms no rails: query_port: EIO (5); ibv_devinfo shows what the driver says",
            ),
            (Level::Ok, "NICs for rails: one: connections of this machine have one rail"),
        ];
        assert_eq!(lines(&nics, true), expected.map(|(level, line)| (level, line.to_owned())));
        assert_eq!(lines(&nics[1..2], false).len(), 1, "without a port that is up nothing goes together");
    }

    #[test]
    fn ports_that_do_not_go_together_are_a_warning() {
        let of = |other: Link| {
            lines(&[nic("a:1", Ok(UP), None, &[]), nic("b:1", Ok(other), None, &[])], false)[2].clone()
        };
        assert_eq!(of(UP), (Level::Ok, "NICs for rails: 2, all alike".to_owned()));
        let slower = of(Link { speed_mbps: 200_000, ..UP });
        assert_eq!(
            slower,
            (Level::Ok, "NICs for rails: 2, of different speeds: faster ones get more".to_owned())
        );
        let (level, line) = of(Link { layer: "Ethernet", mtu: 1024, ..UP });
        assert!(level == Level::Warn && line.contains("not all with the same link layer; give"), "{line}");
        let (level, line) = of(Link { mtu: 1024, ..UP });
        assert!(level == Level::Warn && line.contains("not all with the same path MTU; give"), "{line}");
    }

    #[test]
    fn more_nics_than_a_connection_has_rails_are_told() {
        let of = |count: usize, most: usize| {
            let nics: Vec<_> = (0..count).map(|_| nic("a:1", Ok(UP), None, &[])).collect();
            let mut found = Report::default();
            nics_in_words(&nics, false, most, &mut found);
            found.findings().last().map(ToString::to_string).unwrap()
        };
        assert_eq!(of(8, 8), "NICs for rails: 8, all alike");
        assert_eq!(of(12, 8), "NICs for rails: 12, all alike; a connection uses 8 of them at most");
        assert_eq!(of(2, 1), "NICs for rails: 2, all alike; a connection uses 1 of them at most");
    }

    #[test]
    fn what_the_variable_says() {
        let of = |value: Option<&str>| {
            let find = |name: &str| value.filter(|_| name == VARIABLE).map(str::to_owned);
            let mut found = Report::default();
            setting(&Config::from_source(&find), &mut found);
            found.seen("rails").1
        };
        assert_eq!(of(None), "FLAGCX_P2P_RAILS: 8 (the default): a connection has at most 8 rails");
        assert_eq!(
            of(Some("1")),
            "FLAGCX_P2P_RAILS: 1 (set): every connection has one rail, over the NIC of its engine"
        );
    }
}
