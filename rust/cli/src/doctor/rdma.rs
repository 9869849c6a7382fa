//! RDMA devices as the kernel shows them, whether or not the engine can use them.

use std::path::Path;

use flagcx_p2p::internals::topology::CpuSet;
use rustix::fs::Access;

use super::finding::Report;
use super::system::SystemRoot;

const CLASS: &str = "/sys/class/infiniband";
/// The smallest MTU of an interface over which RoCE packets of 4096 bytes fit.
const MTU_FOR_4096: u64 = 4200;

/// Reports devices, ports, GIDs, and the files in /dev. `opens` says whether this process may open a file.
pub(super) fn report(root: &SystemRoot, opens: &dyn Fn(&Path) -> bool, report: &mut Report) {
    let devices = root.names(CLASS);
    if devices.is_empty() {
        return report.ok("rdma-devices", "RDMA devices in the kernel", format!("none ({CLASS})"));
    }
    report.ok("rdma-devices", "RDMA devices in the kernel", devices.join(", "));
    for device in &devices {
        device_file(root, device, opens, report);
        placement(root, device, report);
        for port in root.names(&format!("{CLASS}/{device}/ports")) {
            let at = format!("{CLASS}/{device}/ports/{port}");
            let name = format!("{device} port {port}");
            if port_state(root, &at, &name, report) {
                gids(root, &at, &name, report);
            }
        }
    }
}

/// Whether this process may read and write a file.
pub(super) fn opens(path: &Path) -> bool {
    rustix::fs::access(path, Access::READ_OK | Access::WRITE_OK).is_ok()
}

/// The character device through which libibverbs works.
fn device_file(root: &SystemRoot, device: &str, opens: &dyn Fn(&Path) -> bool, report: &mut Report) {
    let verbs = "/sys/class/infiniband_verbs";
    let (id, subject) = ("rdma-file", format!("{device} in /dev/infiniband"));
    let is_of_device = |name: &String| root.read(&format!("{verbs}/{name}/ibdev")).as_deref() == Some(device);
    let Some(name) = root.names(verbs).into_iter().find(is_of_device) else {
        return report.warn(id, subject, "the kernel has no uverbs device for it", "modprobe ib_uverbs");
    };
    let file = root.path(&format!("/dev/infiniband/{name}"));
    let shown = root.shown(&file);
    if !file.exists() {
        report.warn(
            id,
            subject,
            format!("{shown} is not there"),
            "--device /dev/infiniband for a container, or its device plugin",
        );
    } else if opens(&file) {
        report.ok(id, subject, format!("{shown} may be opened"));
    } else {
        report.warn(
            id,
            subject,
            format!("{shown} may not be opened"),
            format!("chmod 666 {shown}, or a udev rule of rdma-core"),
        );
    }
}

/// The NUMA node, and whether this process runs near it.
fn placement(root: &SystemRoot, device: &str, report: &mut Report) {
    let (id, subject) = ("rdma-placement", format!("{device} placement"));
    let sysfs = root.sysfs();
    let Some(path) = sysfs.rdma_device_path(device) else {
        return report.ok(id, subject, "no hardware behind it (a software device)");
    };
    let node =
        sysfs.numa_node(&path).map_or_else(|| "no NUMA node".to_owned(), |node| format!("NUMA node {node}"));
    let allowed =
        root.field("/proc/self/status", "Cpus_allowed_list").and_then(|list| CpuSet::parse_list(&list).ok());
    match (sysfs.local_cpus(&path), allowed) {
        (Some(local), Some(allowed)) if local.intersection(&allowed).is_empty() => report.warn(
            id,
            subject,
            format!("{node}, near the processors {local}, of which this process may use none"),
            format!("run it on those: numactl or taskset -c {local}, --cpuset-cpus"),
        ),
        (Some(local), _) => report.ok(id, subject, format!("{node}, near the processors {local}")),
        (None, _) => report.ok(id, subject, node),
    }
}

/// True for an active port.
fn port_state(root: &SystemRoot, at: &str, name: &str, report: &mut Report) -> bool {
    let id = "rdma-port";
    let read = |file: &str| root.read(&format!("{at}/{file}")).unwrap_or_else(|| "unknown".to_owned());
    // `4: ACTIVE`.
    let word = |text: String| text.split_once(": ").map_or_else(|| text.clone(), |(_, word)| word.to_owned());
    let (state, physical, layer) = (word(read("state")), word(read("phys_state")), read("link_layer"));
    let found = format!("{state}, link {physical}, {layer}, {}", read("rate"));
    match state.as_str() {
        "ACTIVE" => {
            report.ok(id, name, found);
            return true;
        }
        "INIT" if layer == "InfiniBand" => report.warn(id, name, found, "no subnet manager has configured it: start opensm, or look at the switch"),
        _ if layer == "Ethernet" => report.warn(id, name, found, "bring its interface up (ip link set IFACE up), check the cable, or leave it out by FLAGCX_IB_HCA"),
        _ => report.warn(id, name, found, "check the cable and the switch, or leave it out by FLAGCX_IB_HCA"),
    }
    false
}

fn gids(root: &SystemRoot, at: &str, name: &str, report: &mut Report) {
    let is_ethernet = root.read(&format!("{at}/link_layer")).as_deref() == Some("Ethernet");
    let filled: Vec<_> = root
        .names(&format!("{at}/gids"))
        .into_iter()
        .filter(|index| {
            let gid = root.read(&format!("{at}/gids/{index}"));
            gid.is_some_and(|gid| gid.chars().any(|letter| !matches!(letter, '0' | ':')))
        })
        .collect();
    let subject = format!("{name} GIDs");
    if !is_ethernet {
        return match filled.len() {
            0 => report.warn(
                "rdma-gids",
                subject,
                "none",
                "no subnet manager has configured the port: start opensm",
            ),
            count => report.ok("rdma-gids", subject, count.to_string()),
        };
    }
    let kind = |index: &String| root.read(&format!("{at}/gid_attrs/types/{index}"));
    let version_2: Vec<_> = filled
        .iter()
        .filter(|index| kind(index).is_some_and(|kind| kind.eq_ignore_ascii_case("RoCE v2")))
        .cloned()
        .collect();
    match (filled.len(), version_2.len()) {
        (0, _) => report.warn("rdma-gids", subject, "none", "give its network interface an address"),
        (count, 0) => report.warn(
            "rdma-gids",
            subject,
            format!("{count}, none of RoCE v2"),
            "enable RoCE v2 (cma_roce_mode, or the NIC's configuration): peers behind a router need it",
        ),
        (count, routable) => report.ok(
            "rdma-gids",
            subject,
            format!("{count}, {routable} of RoCE v2 (index {})", version_2.join(", ")),
        ),
    }
    let interface = filled.iter().find_map(|index| root.read(&format!("{at}/gid_attrs/ndevs/{index}")));
    let Some(interface) = interface else { return };
    let Some(mtu) = root.number(&format!("/sys/class/net/{interface}/mtu")) else { return };
    let subject = format!("{name} MTU");
    if mtu < MTU_FOR_4096 {
        let carried = if mtu >= 2200 { 2048 } else { 1024 };
        report.warn(
            "rdma-mtu",
            subject,
            format!("{interface} has {mtu}: packets of RoCE carry {carried} bytes, not 4096"),
            format!("ip link set {interface} mtu 9000, at every host and switch"),
        );
    } else {
        report.ok("rdma-mtu", subject, format!("{interface} has {mtu}: packets of RoCE carry 4096 bytes"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::system::Fixture;
    use super::*;

    /// One device with one port.
    fn machine(layer: &str, state: &str, gid_type: &str, mtu: &str) -> Fixture {
        let fixture = Fixture::new(&[
            ("sys/class/infiniband/mlx5_0/ports/1/state", state),
            ("sys/class/infiniband/mlx5_0/ports/1/phys_state", "5: LinkUp\n"),
            ("sys/class/infiniband/mlx5_0/ports/1/link_layer", layer),
            ("sys/class/infiniband/mlx5_0/ports/1/rate", "100 Gb/sec (4X EDR)\n"),
            ("sys/class/infiniband/mlx5_0/ports/1/gids/0", "0000:0000:0000:0000:0000:ffff:0a00:0001\n"),
            ("sys/class/infiniband/mlx5_0/ports/1/gids/1", "0000:0000:0000:0000:0000:0000:0000:0000\n"),
            ("sys/class/infiniband/mlx5_0/ports/1/gid_attrs/types/0", gid_type),
            ("sys/class/infiniband/mlx5_0/ports/1/gid_attrs/ndevs/0", "eth1\n"),
            ("sys/class/net/eth1/mtu", mtu),
            ("sys/class/infiniband_verbs/uverbs0/ibdev", "mlx5_0\n"),
            ("dev/infiniband/uverbs0", ""),
            ("sys/devices/pci0000:10/0000:10:00.0/numa_node", "1\n"),
            ("sys/devices/pci0000:10/0000:10:00.0/local_cpulist", "8-15\n"),
            ("proc/self/status", "Cpus_allowed_list:\t0-7\n"),
        ]);
        fixture.link("sys/class/infiniband/mlx5_0/device", "sys/devices/pci0000:10/0000:10:00.0");
        fixture
    }

    fn of(fixture: &Fixture) -> Report {
        let mut found = Report::default();
        report(&fixture.root, &|_| true, &mut found);
        found
    }

    #[test]
    fn a_good_port() {
        let found = of(&machine("Ethernet", "4: ACTIVE\n", "RoCE v2\n", "9000"));
        for id in ["rdma-devices", "rdma-file", "rdma-port", "rdma-gids", "rdma-mtu"] {
            assert_eq!(found.seen(id).0, Level::Ok, "{found:?}");
        }
        assert!(found.seen("rdma-port").1.contains("ACTIVE, link LinkUp, Ethernet, 100 Gb/sec"), "{found:?}");
        assert!(found.seen("rdma-file").1.contains(": /dev/infiniband/uverbs0 may be opened"), "{found:?}");
        let (level, line) = found.seen("rdma-placement");
        assert!(
            level == Level::Warn
                && line.contains("NUMA node 1, near the processors 8-15")
                && line.contains("taskset -c 8-15"),
            "{line}"
        );
    }

    #[test]
    fn ports_gids_and_mtus_that_are_not() {
        let found = of(&machine("Ethernet", "1: DOWN\n", "RoCE v2", "9000"));
        assert!(found.seen("rdma-port").1.contains("ip link set IFACE up"), "{found:?}");
        assert!(
            found.findings().all(|finding| finding.id != "rdma-gids"),
            "nothing is said of a port that is down"
        );
        let found = of(&machine("Ethernet", "4: ACTIVE", "IB/RoCE v1\n", "1500\n"));
        let (level, line) = found.seen("rdma-gids");
        assert!(level == Level::Warn && line.contains("1, none of RoCE v2"), "{line}");
        let (level, line) = found.seen("rdma-mtu");
        assert!(
            level == Level::Warn
                && line.contains("carry 1024 bytes")
                && line.contains("ip link set eth1 mtu 9000"),
            "{line}"
        );
        let found = of(&machine("InfiniBand", "2: INIT", "", ""));
        assert!(found.seen("rdma-port").1.contains("opensm"), "{found:?}");
    }

    #[test]
    fn files_that_cannot_be_opened() {
        let fixture = machine("Ethernet", "4: ACTIVE", "RoCE v2", "9000");
        let mut found = Report::default();
        report(&fixture.root, &|_| false, &mut found);
        let (level, line) = found.seen("rdma-file");
        assert!(level == Level::Warn && line.contains("chmod 666 /dev/infiniband/uverbs0"), "{line}");
        std::fs::remove_file(fixture.root.path("dev/infiniband/uverbs0")).unwrap();
        assert!(of(&fixture).seen("rdma-file").1.contains("--device /dev/infiniband"));
        std::fs::remove_dir_all(fixture.root.path("sys/class/infiniband_verbs")).unwrap();
        assert!(of(&fixture).seen("rdma-file").1.contains("modprobe ib_uverbs"));
        assert!(opens(&fixture.root.path("proc/self/status")) && !opens(Path::new("/nowhere/at/all")));
    }

    #[test]
    fn none() {
        let found = of(&Fixture::new(&[]));
        assert_eq!(
            found.seen("rdma-devices"),
            (Level::Ok, "RDMA devices in the kernel: none (/sys/class/infiniband)".to_owned())
        );
        assert_eq!(found.findings().count(), 1);
    }
}
