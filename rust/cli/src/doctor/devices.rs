//! Providers and devices.

use std::net::Ipv6Addr;

use flagcx_p2p::config::Config;
use flagcx_p2p::fabric::{self, Device, LINK_ETHERNET, LINK_INFINIBAND, Provider};

use super::{Findings, fact, heading};
use crate::error::Result;
use crate::output::units;

/// Reports them; gives the provider in use.
pub(super) fn report(config: &Config, findings: &mut Findings) -> Result<Option<Provider>> {
    heading("fabric");
    fact("devices in the kernel", &kernel_devices());
    let options = config.fabric_options().inspect_err(|error| findings.add(error.to_string()));
    let options = options.map_err(|error| crate::error::CliError::other(error.to_string()))?;
    let list = match fabric::devices(&options) {
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
    let gid = Ipv6Addr::from(port.gid);
    fact("GID", &format!("index {}, {gid}: {}", port.gid_index, port.gid_reason));
    if !port.active {
        findings.add(format!("{name} is down: bring the link up, or name another device in FLAGCX_IB_HCA"));
    }
}

/// What the kernel lists, whether or not it can be used.
fn kernel_devices() -> String {
    let entries = std::fs::read_dir("/sys/class/infiniband").into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    if names.is_empty() { "none (/sys/class/infiniband)".to_owned() } else { names.join(", ") }
}
