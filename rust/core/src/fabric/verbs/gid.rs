//! Which GID of a port to use: a pure function over the port's table.
//!
//! The peers of a RoCE connection must speak the same RoCE version and reach each other's address, so the choice
//! ranks, in this order: how far the address reaches, whether the RoCE version is the wanted one, whether the address
//! family is. Among equals the lowest index wins, so both ends of a pair of like hosts choose alike.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::fabric::{FabricError, GidEntry, LINK_INFINIBAND, VerbsOptions};

/// A chosen GID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GidChoice {
    pub(super) index: u8,
    pub(super) gid: [u8; 16],
    /// The reason for the choice, for an operator.
    pub(super) reason: String,
}

/// The preferences for the GID.
#[derive(Clone, Debug)]
pub(super) struct GidPreference {
    index: Option<u8>,
    roce_version: u8,
    prefer_ipv6: bool,
    range: Option<IpNet>,
}

/// How far an address reaches; a later one is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    LinkLocal,
    Loopback,
    Routable,
}

impl GidPreference {
    /// The preferences of the provider's options.
    pub(super) fn from_options(options: &VerbsOptions) -> Result<Self, FabricError> {
        let text = options.address_range.trim();
        let range = if text.is_empty() {
            None
        } else {
            Some(text.parse().map_err(|_| {
                FabricError::Unsupported(format!(
                    "FLAGCX_IB_ADDR_RANGE=\"{text}\" is not address/prefix, for example 10.1.0.0/16"
                ))
            })?)
        };
        Ok(Self {
            index: options.gid_index,
            roce_version: options.roce_version,
            prefer_ipv6: options.prefer_ipv6,
            range,
        })
    }

    /// Chooses from `table`, the filled entries of `port` (named as in `mlx5_0 port 1`); the whole table has
    /// `table_length` entries.
    pub(super) fn choose(
        &self,
        port: &str,
        link_layer: u8,
        table_length: u32,
        table: &[GidEntry],
    ) -> Result<GidChoice, FabricError> {
        if let Some(index) = self.index {
            return by_index(index, port, table_length, table);
        }
        if link_layer == LINK_INFINIBAND {
            // Addressed by LID; the GID only names the port.
            let entry = table.first().ok_or_else(|| self.none(port, table))?;
            return Ok(chosen(entry, "first of an InfiniBand port".to_owned()));
        }
        let best = table
            .iter()
            .filter(|entry| self.in_range(entry))
            .max_by_key(|entry| (self.rank(entry), std::cmp::Reverse(entry.index)))
            .ok_or_else(|| self.none(port, table))?;
        let mut reason = format!("best of {}: {}", table.len(), GidText(best));
        for shortfall in self.shortfalls(best) {
            reason.push_str(&shortfall);
        }
        Ok(chosen(best, reason))
    }

    fn in_range(&self, entry: &GidEntry) -> bool {
        self.range.is_none_or(|range| range.contains(&address(&entry.gid)))
    }

    fn rank(&self, entry: &GidEntry) -> (Reach, bool, bool) {
        let address = address(&entry.gid);
        (reach(address), entry.roce_version == Some(self.roce_version), address.is_ipv6() == self.prefer_ipv6)
    }

    /// The preferences that the best entry does not meet, as additions to the reason.
    fn shortfalls(&self, entry: &GidEntry) -> Vec<String> {
        let (reach, _, family) = self.rank(entry);
        let mut shortfalls = Vec::new();
        if reach == Reach::LinkLocal {
            shortfalls
                .push("; link-local, as the port has no other: peers must be on the same link".to_owned());
        }
        if entry.roce_version.is_some_and(|version| version != self.roce_version) {
            shortfalls.push(format!("; RoCE v{} was wanted but has no better address", self.roce_version));
        }
        if !family {
            let wanted = if self.prefer_ipv6 { "IPv6" } else { "IPv4" };
            shortfalls.push(format!("; {wanted} was wanted but has no better address"));
        }
        shortfalls
    }

    fn none(&self, port: &str, table: &[GidEntry]) -> FabricError {
        let found = if table.is_empty() {
            "an empty GID table".to_owned()
        } else {
            let entries: Vec<_> =
                table.iter().map(|entry| format!("[{}] {}", entry.index, GidText(entry))).collect();
            entries.join(", ")
        };
        let wanted = self.range.map_or_else(|| "a GID".to_owned(), |range| format!("a GID within {range}"));
        let advice = if self.range.is_some() {
            "set FLAGCX_IB_ADDR_RANGE to a range that holds one of them, or unset it"
        } else {
            "give the port's network interface an address and bring it up"
        };
        FabricError::Unsupported(format!(
            "{port} has no usable GID: looked for {wanted}, found {found}; {advice}"
        ))
    }
}

fn by_index(index: u8, port: &str, table_length: u32, table: &[GidEntry]) -> Result<GidChoice, FabricError> {
    if let Some(entry) = table.iter().find(|entry| entry.index == index) {
        return Ok(chosen(entry, format!("set by FLAGCX_IB_GID_INDEX: {}", GidText(entry))));
    }
    let found = if u32::from(index) >= table_length {
        format!("the table ends at index {}", table_length.saturating_sub(1))
    } else {
        "that entry is empty".to_owned()
    };
    let filled: Vec<_> = table.iter().map(|entry| entry.index.to_string()).collect();
    Err(FabricError::Unsupported(format!(
        "FLAGCX_IB_GID_INDEX={index} cannot be used on {port}: {found}; filled entries: {}; set one of them, or unset \
         it to have one chosen",
        if filled.is_empty() { "none".to_owned() } else { filled.join(", ") }
    )))
}

fn chosen(entry: &GidEntry, reason: String) -> GidChoice {
    GidChoice { index: entry.index, gid: entry.gid, reason }
}

/// A GID read as an address; IPv4-mapped ones become IPv4.
fn address(gid: &[u8; 16]) -> IpAddr {
    Ipv6Addr::from(*gid).to_canonical()
}

fn reach(address: IpAddr) -> Reach {
    match address {
        _ if address.is_loopback() => Reach::Loopback,
        IpAddr::V4(v4) if v4.is_link_local() => Reach::LinkLocal,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Reach::LinkLocal,
        _ => Reach::Routable,
    }
}

/// An entry as text: `::ffff:10.0.0.1 RoCE v2 on eth0`.
struct GidText<'a>(&'a GidEntry);

impl fmt::Display for GidText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Ipv6Addr::from(self.0.gid))?;
        match self.0.roce_version {
            Some(version) => write!(f, " RoCE v{version}")?,
            None => f.write_str(" RoCE version unknown")?,
        }
        self.0.netdev.as_ref().map_or(Ok(()), |netdev| write!(f, " on {netdev}"))
    }
}

#[cfg(test)]
#[path = "gid_tests.rs"]
mod tests;
