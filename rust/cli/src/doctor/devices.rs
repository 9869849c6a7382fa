//! Providers and devices.

use std::net::Ipv6Addr;

use flagcx_p2p::Config;
use flagcx_p2p::internals::engine;
use flagcx_p2p::internals::fabric::{
    Device, GidEntry, LINK_ETHERNET, LINK_INFINIBAND, PortAttributes, Provider,
};

use super::{Findings, fact, heading};
use crate::error::Result;
use crate::output::units;

/// Reports them; returns the provider in use.
pub(super) fn report(config: &Config, findings: &mut Findings) -> Result<Option<Provider>> {
    heading("fabric");
    fact("devices in the kernel", &kernel_devices());
    let list = match engine::devices(config) {
        Ok(list) => list,
        Err(error) => {
            fact("provider", "none");
            findings.add(format!("no device can be opened: {error}"));
            return Err(error.into());
        }
    };
    let selection = list.selection();
    let provider = selection.provider.map_or_else(|| "none".to_owned(), |provider| provider.to_string());
    fact("provider", &format!("{provider}, because: {}", selection.reason));
    for port in &selection.not_used {
        fact("not used", port);
    }
    for (index, device) in list.devices().iter().enumerate() {
        one(index, &**device, findings);
    }
    Ok(selection.provider)
}

fn one(index: usize, device: &dyn Device, findings: &mut Findings) {
    let attributes = device.attributes();
    let name = format!("{} port {}", attributes.name, attributes.port);
    heading(&format!("device {index}: {name}"));
    fact("path in sysfs", attributes.pci_path.as_deref().unwrap_or("unknown"));
    fact(
        "limits",
        &format!(
            "queue depth {}, CQ depth {}, {} queue pairs, {} scatter/gather entries, region {}",
            attributes.max_queue_depth,
            attributes.max_cq_depth,
            attributes.max_queue_pairs,
            attributes.max_sge,
            if attributes.max_region > 1 << 60 {
                "of any size".to_owned()
            } else {
                units::bytes(attributes.max_region)
            },
        ),
    );
    fact("dma-buf", if attributes.dma_buf { "offered" } else { "not offered" });
    let port = match device.port() {
        Ok(port) => port,
        Err(error) => return findings.add(format!("{name}: {error}")),
    };
    let link = match port.link_layer {
        LINK_INFINIBAND => "InfiniBand",
        LINK_ETHERNET => "Ethernet",
        _ => "software",
    };
    let state = if port.active { "active" } else { "down" };
    fact("port", &format!("{state}, {link}, {} Mbit/s, path MTU {}", port.speed_mbps, port.mtu));
    gids(device, &port, findings);
    if !port.active {
        findings.add(format!("{name} is down: bring the link up, or name another device in FLAGCX_IB_HCA"));
    }
}

/// The port's GID table, with the one in use marked and its reason.
fn gids(device: &dyn Device, port: &PortAttributes, findings: &mut Findings) {
    let entries = device.gids().unwrap_or_else(|error| {
        findings.add(error.to_string());
        Vec::new()
    });
    for entry in &entries {
        fact(if entry.index == port.gid_index { "GID in use" } else { "GID" }, &gid(entry));
    }
    fact("because", &port.gid_reason);
}

/// `[1] ::ffff:10.0.0.1  RoCE v2  eth0`.
fn gid(entry: &GidEntry) -> String {
    let kind = entry.roce_version.map_or_else(|| "-".to_owned(), |version| format!("RoCE v{version}"));
    let netdev = entry.netdev.as_deref().unwrap_or("-");
    let address = Ipv6Addr::from(entry.gid).to_string();
    format!("[{}] {address:<40}{kind:<9}{netdev}", entry.index)
}

/// What the kernel lists, whether or not it can be used.
fn kernel_devices() -> String {
    let entries = std::fs::read_dir("/sys/class/infiniband").into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    if names.is_empty() { "none (/sys/class/infiniband)".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gid_is_printed_with_all_that_is_known() {
        let mapped = "::ffff:10.0.0.1".parse::<Ipv6Addr>().unwrap().octets();
        let entry =
            GidEntry { index: 3, gid: mapped, roce_version: Some(2), netdev: Some("eth0".to_owned()) };
        let words: Vec<_> = gid(&entry).split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["[3]", "::ffff:10.0.0.1", "RoCE", "v2", "eth0"]);
        let bare = gid(&GidEntry { roce_version: None, netdev: None, ..entry });
        assert_eq!(bare.split_whitespace().collect::<Vec<_>>(), ["[3]", "::ffff:10.0.0.1", "-", "-"]);
    }
}
