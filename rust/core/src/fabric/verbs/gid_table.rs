//! A port's GID table, and what of it this host can use.
//!
//! libibverbs of version 32 and later gives the whole table in one call, with RoCE versions and interfaces; an older one is
//! asked entry by entry, and the kernel's files say the rest.
#![allow(unsafe_code, reason = "calls libibverbs")]

use std::ffi::CStr;
use std::net::{IpAddr, Ipv6Addr};

use super::context::VerbsContext;
use super::sys::{GidTableEntry, ibv_ah_attr, ibv_gid, ibv_global_route, last_errno};
use super::sysfs::{DeviceFiles, GidInterface};
use crate::fabric::{GidEntry, LINK_ETHERNET};

/// `enum ibv_gid_type`: its numbers are the RoCE versions, and this is none.
const GID_TYPE_INFINIBAND: u32 = 0;

/// A filled entry of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) entry: GidEntry,
    pub(super) standing: Standing,
}

/// Whether an entry's address is one of this host; a later one is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Its network interface is gone.
    Gone,
    /// No interface of this host, or of this container, has the address.
    Elsewhere,
    /// An interface has it, or it cannot be told.
    Here,
}

/// The device's answer to a trial address handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// Packets can leave from this entry.
    Passed,
    /// They cannot, with the errno.
    Refused(i32),
    /// The library or the driver makes no address handles.
    Unknown,
}

/// The filled entries of `port`; its table has `places`, of which a queue pair can name the first 256.
pub(super) fn read(
    context: &VerbsContext,
    files: &DeviceFiles,
    port: u8,
    link_layer: u8,
    places: u32,
) -> Vec<Candidate> {
    let found = in_one_call(context, files, port, places)
        .unwrap_or_else(|| entry_by_entry(context, files, port, places.min(256)));
    if link_layer != LINK_ETHERNET {
        // The addresses of InfiniBand are not of IP interfaces.
        return found.into_iter().map(|(entry, _)| Candidate { entry, standing: Standing::Here }).collect();
    }
    let addresses = host_addresses();
    found
        .into_iter()
        .map(|(entry, gone)| {
            let standing = if gone { Standing::Gone } else { standing(&entry, addresses.as_deref()) };
            Candidate { entry, standing }
        })
        .collect()
}

/// Makes an address handle from `entry` to itself and drops it: the kernel then looks for the route and the interface that a
/// queue pair's packets would take.
pub(super) fn try_address(context: &VerbsContext, port: u8, entry: &GidEntry) -> Trial {
    let library = context.library;
    let (Some(create), Some(destroy)) = (library.ibv_create_ah, library.ibv_destroy_ah) else {
        return Trial::Unknown;
    };
    let mut address = ibv_ah_attr {
        grh: ibv_global_route {
            dgid: ibv_gid { raw: entry.gid },
            flow_label: 0,
            sgid_index: entry.index,
            hop_limit: u8::MAX,
            traffic_class: 0,
        },
        dlid: 0,
        sl: 0,
        src_path_bits: 0,
        static_rate: 0,
        is_global: 1,
        port_num: port,
    };
    // SAFETY: the protection domain is alive; the library reads the attributes.
    let handle = unsafe { create(context.domain.as_ptr(), &raw mut address) };
    if handle.is_null() {
        return match last_errno() {
            // Nothing about the address.
            libc::ENOSYS | libc::EOPNOTSUPP | libc::ENOMEM | libc::EPERM | libc::EACCES => Trial::Unknown,
            errno => Trial::Refused(errno),
        };
    }
    // SAFETY: just made, and dropped once.
    let code = unsafe { destroy(handle) };
    if code != 0 {
        tracing::debug!(device = context.name, code, "ibv_destroy_ah failed: a trial address handle leaks");
    }
    Trial::Passed
}

/// Entries and whether their interface is gone; `None` if the library or the kernel has no such call.
fn in_one_call(
    context: &VerbsContext,
    files: &DeviceFiles,
    port: u8,
    places: u32,
) -> Option<Vec<(GidEntry, bool)>> {
    let query = context.library._ibv_query_gid_table?;
    // The call answers for all ports of the device: two at most, except on switches, which carry no data of hosts.
    let most = usize::try_from(places).ok()?.saturating_mul(2).min(1 << 16);
    let mut table = vec![GidTableEntry::default(); most];
    let size = size_of::<GidTableEntry>();
    // SAFETY: the context is open, and the library writes at most `most` entries of `size` bytes.
    let count = unsafe { query(context.raw.as_ptr(), table.as_mut_ptr(), most, 0, size) };
    table.truncate(usize::try_from(count).ok()?);
    Some(
        table
            .iter()
            .filter(|entry| entry.port_num == u32::from(port) && entry.gid != [0; 16])
            .filter_map(|entry| of_library(files, port, entry))
            .collect(),
    )
}

fn entry_by_entry(
    context: &VerbsContext,
    files: &DeviceFiles,
    port: u8,
    places: u32,
) -> Vec<(GidEntry, bool)> {
    (0..places)
        .filter_map(|place| {
            if let Some(entry) = one_entry(context, port, place) {
                return of_library(files, port, &entry);
            }
            let gid = context.query_gid(port, place).filter(|gid| *gid != [0; 16])?;
            let index = u8::try_from(place).ok()?;
            let (netdev, gone) = of_files(files, port, index);
            Some((GidEntry { index, gid, roce_version: files.roce_version(port, index), netdev }, gone))
        })
        .collect()
}

/// One entry with its version and interface, where the library has the call.
fn one_entry(context: &VerbsContext, port: u8, place: u32) -> Option<GidTableEntry> {
    let query = context.library._ibv_query_gid_ex?;
    let mut entry = GidTableEntry::default();
    let size = size_of::<GidTableEntry>();
    // SAFETY: the context is open; the library fills one entry of `size` bytes.
    let code = unsafe { query(context.raw.as_ptr(), u32::from(port), place, &raw mut entry, 0, size) };
    (code == 0 && entry.gid != [0; 16]).then_some(entry)
}

/// An entry as the library describes it; `None` for an index that no address can hold.
fn of_library(files: &DeviceFiles, port: u8, entry: &GidTableEntry) -> Option<(GidEntry, bool)> {
    let index = u8::try_from(entry.gid_index).ok()?;
    let (netdev, gone) = match interface_name(entry.ndev_ifindex) {
        Some(name) => (Some(name), false),
        // An index of another network namespace has no name here, the kernel's file may have it all the same.
        None if entry.ndev_ifindex != 0 => (of_files(files, port, index).0, false),
        None => (None, true),
    };
    let roce_version = match entry.gid_type {
        GID_TYPE_INFINIBAND => None,
        version => u8::try_from(version).ok(),
    };
    Some((GidEntry { index, gid: entry.gid, roce_version, netdev }, gone))
}

/// The interface's name by the kernel's files, and whether they say that it is gone.
fn of_files(files: &DeviceFiles, port: u8, index: u8) -> (Option<String>, bool) {
    match files.netdev(port, index) {
        GidInterface::Named(name) => (Some(name), false),
        GidInterface::Gone => (None, true),
        GidInterface::Unknown => (None, false),
    }
}

fn interface_name(index: u32) -> Option<String> {
    if index == 0 {
        return None;
    }
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: `name` has the room that the call asks for; it returns null, or `name` as a C string.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    // SAFETY: as above.
    (!found.is_null()).then(|| unsafe { CStr::from_ptr(found) }.to_string_lossy().into_owned())
}

fn standing(entry: &GidEntry, addresses: Option<&[IpAddr]>) -> Standing {
    let address = Ipv6Addr::from(entry.gid).to_canonical();
    match addresses {
        Some(addresses) if !addresses.contains(&address) => Standing::Elsewhere,
        _ => Standing::Here,
    }
}

/// The addresses of this host's interfaces; `None` if they cannot be read.
fn host_addresses() -> Option<Vec<IpAddr>> {
    Some(if_addrs::get_if_addrs().ok()?.iter().map(if_addrs::Interface::ip).collect())
}
