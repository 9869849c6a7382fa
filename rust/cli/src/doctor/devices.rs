//! The engine's own view: which provider, which devices, which GID of each.

use std::net::Ipv6Addr;

use flagcx_p2p::Config;
use flagcx_p2p::internals::engine;
use flagcx_p2p::internals::fabric::{
    Device, FabricError, GidEntry, LINK_ETHERNET, LINK_INFINIBAND, PortAttributes, Provider, Selection,
};

use super::finding::Report;
use super::system::SystemRoot;
use crate::output::units;

/// Reports them; returns the provider in use.
pub(super) fn report(config: &Config, root: &SystemRoot, report: &mut Report) -> Option<Provider> {
    let list = match engine::devices(config) {
        Ok(list) => list,
        Err(error) => {
            report.fail(
                "provider",
                "provider",
                format!("none, no engine opens: {error}"),
                "FLAGCX_P2P_FABRIC=auto or software goes on without a NIC",
            );
            return None;
        }
    };
    let selection = list.selection();
    let provider = selection.provider.map_or_else(|| "none".to_owned(), |provider| provider.to_string());
    report.ok("provider", "provider", format!("{provider}, because: {}", selection.reason));
    library(selection, root, report);
    for port in &selection.not_used {
        report.warn(
            "port-not-used",
            "RDMA port",
            format!("not used: {port}"),
            "FLAGCX_IB_HCA and FLAGCX_P2P_IB_PORT choose ports",
        );
    }
    for (index, device) in list.devices().iter().enumerate() {
        one(index, &**device, report);
    }
    selection.provider
}

/// Which libibverbs is loaded, or why none is.
fn library(selection: &Selection, root: &SystemRoot, report: &mut Report) {
    let (id, subject) = ("libibverbs", "libibverbs");
    match &selection.refusal {
        Some(FabricError::Library { library, reason }) => {
            let found = format!("{library}: {reason}");
            let action = "install libibverbs1 and ibverbs-providers (rdma-core), or name the file in FLAGCX_P2P_IBVERBS";
            // Without a device it would find nothing.
            if root.names("/sys/class/infiniband").is_empty() {
                report.ok(id, subject, format!("not loaded ({found}); without a device it is not needed"));
            } else {
                report.warn(id, subject, found, action);
            }
        }
        _ => match loaded(root) {
            Some(path) => report.ok(id, subject, path),
            None => report.ok(id, subject, "not loaded"),
        },
    }
}

/// The file of the library in this process.
fn loaded(root: &SystemRoot) -> Option<String> {
    let maps = root.read("/proc/self/maps")?;
    maps.lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .find(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with("libibverbs")))
        .map(str::to_owned)
}

fn one(index: usize, device: &dyn Device, report: &mut Report) {
    let attributes = device.attributes();
    let name = format!("device {index}: {} port {}", attributes.name, attributes.port);
    let region = if attributes.max_region > 1 << 60 {
        "any size".to_owned()
    } else {
        units::bytes(attributes.max_region)
    };
    report.ok(
        "device",
        &name,
        format!(
            "{}; queue depth {}, CQ depth {}, {} queue pairs, {} scatter/gather entries, regions of {region}, dma-buf {}",
            attributes.pci_path.as_deref().unwrap_or("no path in sysfs"),
            attributes.max_queue_depth,
            attributes.max_cq_depth,
            attributes.max_queue_pairs,
            attributes.max_sge,
            if attributes.dma_buf { "offered" } else { "not offered" },
        ),
    );
    if let Err(error) = device.check_use() {
        report.fail(
            "device-unusable",
            &name,
            error.to_string(),
            "FLAGCX_IB_HCA names devices to use, FLAGCX_P2P_FABRIC=software does without",
        );
    }
    let port = match device.port() {
        Ok(port) => port,
        Err(error) => {
            return report.fail("port", &name, error.to_string(), "ibv_devinfo shows what the driver says");
        }
    };
    let link = match port.link_layer {
        LINK_INFINIBAND => "InfiniBand",
        LINK_ETHERNET => "Ethernet",
        _ => "software",
    };
    let found = format!("{link}, {} Mbit/s, path MTU {}", port.speed_mbps, port.mtu);
    if port.active {
        report.ok("port", &name, format!("active, {found}"));
    } else {
        report.warn(
            "port",
            &name,
            format!("down, {found}"),
            "bring the link up, or name another device in FLAGCX_IB_HCA",
        );
    }
    gids(device, &name, &port, report);
}

/// The GID in use with its reason, and the others.
fn gids(device: &dyn Device, name: &str, port: &PortAttributes, report: &mut Report) {
    let entries = match device.gids() {
        Ok(entries) => entries,
        Err(error) => return report.warn("gid", name, error.to_string(), "FLAGCX_P2P_GID_INDEX names one"),
    };
    let (used, others): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.index == port.gid_index);
    let used: Vec<_> = used.into_iter().map(gid).collect();
    report.ok("gid", name, format!("GID in use {}, because: {}", used.join(", "), port.gid_reason));
    if !others.is_empty() {
        report.ok(
            "gid-others",
            name,
            format!("other GIDs {}", others.into_iter().map(gid).collect::<Vec<_>>().join(", ")),
        );
    }
}

/// `[1] ::ffff:10.0.0.1 RoCE v2 eth0`.
fn gid(entry: &GidEntry) -> String {
    let mut text = format!("[{}] {}", entry.index, Ipv6Addr::from(entry.gid));
    if let Some(version) = entry.roce_version {
        text += &format!(" RoCE v{version}");
    }
    if let Some(netdev) = &entry.netdev {
        text += &format!(" {netdev}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::system::Fixture;
    use super::*;

    #[test]
    fn a_gid_is_printed_with_all_that_is_known() {
        let mapped = "::ffff:10.0.0.1".parse::<Ipv6Addr>().unwrap().octets();
        let entry =
            GidEntry { index: 3, gid: mapped, roce_version: Some(2), netdev: Some("eth0".to_owned()) };
        assert_eq!(gid(&entry), "[3] ::ffff:10.0.0.1 RoCE v2 eth0");
        assert_eq!(gid(&GidEntry { roce_version: None, netdev: None, ..entry }), "[3] ::ffff:10.0.0.1");
    }

    #[test]
    fn which_libibverbs() {
        let selection =
            |refusal| Selection { provider: None, reason: String::new(), refusal, not_used: Vec::new() };
        let missing = || {
            Some(FabricError::Library {
                library: "libibverbs.so.1".to_owned(),
                reason: "no such file".to_owned(),
            })
        };
        let of = |selection: &Selection, files: &[(&str, &str)]| {
            let mut found = Report::default();
            library(selection, &Fixture::new(files).root, &mut found);
            found.seen("libibverbs")
        };
        assert_eq!(of(&selection(missing()), &[]).0, Level::Ok, "it would find no device");
        let device = ("sys/class/infiniband/mlx5_0/node_type", "1");
        let (level, line) = of(&selection(missing()), &[device]);
        assert!(
            level == Level::Warn && line.contains("libibverbs.so.1: no such file; install libibverbs1"),
            "{line}"
        );
        let maps = "7f00-7f01 r-xp 00000000 08:01 42   /usr/lib/libc.so.6\n7f02-7f03 r-xp 0 08:01 43   /opt/lib/libibverbs.so.1.14\n";
        assert_eq!(
            of(&selection(None), &[device, ("proc/self/maps", maps)]),
            (Level::Ok, "libibverbs: /opt/lib/libibverbs.so.1.14".to_owned())
        );
    }
}
