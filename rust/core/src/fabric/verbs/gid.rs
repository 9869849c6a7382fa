//! Which GID of a port to use: a pure function over the port's table.
//!
//! The peers of a RoCE connection must speak the same RoCE version and reach each other's address, so the choice
//! ranks, in this order: whether the address is one of this host, how far it reaches, whether the RoCE version is the wanted
//! one, whether the address family is. Among equals the lowest index wins, so both ends of a pair of like hosts choose alike.
//! Of the ranked ones the first is taken from which the device makes an address handle.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::gid_table::{Candidate, Standing, Trial};
use super::routes::flid;
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
    /// `table_length` entries. `trial` says whether packets can leave from an entry.
    pub(super) fn choose(
        &self,
        port: &str,
        link_layer: u8,
        table_length: u32,
        table: &[Candidate],
        trial: impl Fn(&GidEntry) -> Trial,
    ) -> Result<GidChoice, FabricError> {
        if let Some(index) = self.index {
            return by_index(index, port, table_length, table);
        }
        if link_layer == LINK_INFINIBAND {
            return of_infiniband(table).ok_or_else(|| self.none(port, table));
        }
        let ranked = self.ranked(table);
        let best = ranked.first().ok_or_else(|| self.none(port, table))?;
        let mut refusals = String::new();
        let mut passed = None;
        for candidate in &ranked {
            let Trial::Refused(errno) = trial(&candidate.entry) else {
                passed = Some(candidate);
                break;
            };
            let error = std::io::Error::from_raw_os_error(errno);
            refusals.push_str(&format!(
                "; the device makes no address from [{}]: {error}",
                candidate.entry.index
            ));
        }
        // If it makes none, that is for the first connection to say.
        let taken = passed.unwrap_or(best);
        let mut reason = format!("best of {}: {}", table.len(), GidText(&taken.entry));
        for shortfall in self.shortfalls(taken) {
            reason.push_str(&shortfall);
        }
        reason.push_str(&refusals);
        Ok(chosen(&taken.entry, reason))
    }

    /// The entries that may be used, the best first.
    fn ranked<'a>(&self, table: &'a [Candidate]) -> Vec<&'a Candidate> {
        let mut ranked: Vec<_> = table.iter().filter(|candidate| self.in_range(&candidate.entry)).collect();
        ranked.sort_by_key(|candidate| {
            std::cmp::Reverse((self.rank(candidate), std::cmp::Reverse(candidate.entry.index)))
        });
        ranked
    }

    fn in_range(&self, entry: &GidEntry) -> bool {
        self.range.is_none_or(|range| range.contains(&address(&entry.gid)))
    }

    fn rank(&self, candidate: &Candidate) -> (Standing, Reach, bool, bool) {
        let (entry, address) = (&candidate.entry, address(&candidate.entry.gid));
        (
            candidate.standing,
            reach(address),
            entry.roce_version == Some(self.roce_version),
            address.is_ipv6() == self.prefer_ipv6,
        )
    }

    /// The preferences that the best entry does not meet, as additions to the reason.
    fn shortfalls(&self, candidate: &Candidate) -> Vec<String> {
        let (standing, reach, _, family) = self.rank(candidate);
        let mut shortfalls = Vec::new();
        match standing {
            Standing::Here => {}
            Standing::Elsewhere => shortfalls.push("; no interface of this host has the address".to_owned()),
            Standing::Gone => shortfalls.push("; its network interface is gone".to_owned()),
        }
        if reach == Reach::LinkLocal {
            shortfalls
                .push("; link-local, as the port has no other: peers must be on the same link".to_owned());
        }
        if candidate.entry.roce_version.is_some_and(|version| version != self.roce_version) {
            shortfalls.push(format!("; RoCE v{} was wanted but has no better address", self.roce_version));
        }
        if !family {
            let wanted = if self.prefer_ipv6 { "IPv6" } else { "IPv4" };
            shortfalls.push(format!("; {wanted} was wanted but has no better address"));
        }
        shortfalls
    }

    fn none(&self, port: &str, table: &[Candidate]) -> FabricError {
        let found = if table.is_empty() {
            "an empty GID table".to_owned()
        } else {
            let listed: Vec<_> =
                entries(table).map(|entry| format!("[{}] {}", entry.index, GidText(entry))).collect();
            listed.join(", ")
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

/// Addressed by LID, so that the GID only names the port; but one with a FLID can be reached from other subnets.
fn of_infiniband(table: &[Candidate]) -> Option<GidChoice> {
    if let Some(entry) = entries(table).find(|entry| flid(&entry.gid).is_some()) {
        return Some(chosen(entry, "first of an InfiniBand port with a FLID".to_owned()));
    }
    entries(table).next().map(|entry| chosen(entry, "first of an InfiniBand port".to_owned()))
}

fn entries(table: &[Candidate]) -> impl Iterator<Item = &GidEntry> {
    table.iter().map(|candidate| &candidate.entry)
}

fn by_index(index: u8, port: &str, table_length: u32, table: &[Candidate]) -> Result<GidChoice, FabricError> {
    if let Some(entry) = entries(table).find(|entry| entry.index == index) {
        return Ok(chosen(entry, format!("set by FLAGCX_IB_GID_INDEX: {}", GidText(entry))));
    }
    let found = if u32::from(index) >= table_length {
        format!("the table ends at index {}", table_length.saturating_sub(1))
    } else {
        "that entry is empty".to_owned()
    };
    let filled: Vec<_> = entries(table).map(|entry| entry.index.to_string()).collect();
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
