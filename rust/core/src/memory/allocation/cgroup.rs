//! Memory limits of the control groups that the process is in.

use std::fs;
use std::path::{Path, PathBuf};

/// The files of a hierarchy. Version 2 has one for all controllers.
struct Hierarchy {
    mount: &'static str,
    limit: &'static str,
    usage: &'static str,
    swap: Swap,
    /// Parts of the usage that the kernel takes back when memory is needed: pages of files.
    reclaimable: [&'static str; 2],
}

/// Limit and usage of swap.
enum Swap {
    Alone {
        limit: &'static str,
        usage: &'static str,
    },
    /// Of memory and swap together.
    WithMemory {
        limit: &'static str,
        usage: &'static str,
    },
}

const UNIFIED: Hierarchy = Hierarchy {
    mount: "sys/fs/cgroup",
    limit: "memory.max",
    usage: "memory.current",
    swap: Swap::Alone { limit: "memory.swap.max", usage: "memory.swap.current" },
    reclaimable: ["inactive_file", "active_file"],
};

const VERSION_1: Hierarchy = Hierarchy {
    mount: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    swap: Swap::WithMemory { limit: "memory.memsw.limit_in_bytes", usage: "memory.memsw.usage_in_bytes" },
    reclaimable: ["total_inactive_file", "total_active_file"],
};

/// What each group with a limit has left in bytes, of memory and of the `free` bytes of swap, and its path: the process's own, and
/// those around it.
pub(super) fn limits(root: &Path, free: u64) -> Vec<(u64, PathBuf)> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    groups
        .lines()
        .filter_map(hierarchy_of)
        .flat_map(|(hierarchy, group)| left(root, hierarchy, group, free))
        .collect()
}

/// Of a line `number:controllers:path`; `None` for controllers of other things.
fn hierarchy_of(line: &str) -> Option<(&'static Hierarchy, &Path)> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, group) = rest.split_once(':')?;
    let hierarchy = match controllers {
        "" => &UNIFIED,
        _ if controllers.split(',').any(|one| one == "memory") => &VERSION_1,
        _ => return None,
    };
    Some((hierarchy, Path::new(group)))
}

fn left(root: &Path, hierarchy: &Hierarchy, group: &Path, free: u64) -> Vec<(u64, PathBuf)> {
    let inside = group.strip_prefix("/").unwrap_or(group);
    // A container without a namespace for them sees its own group at the root of the mount.
    let outwards: Vec<_> = inside.ancestors().collect();
    let mut swap = free;
    outwards
        .into_iter()
        .rev()
        .filter_map(|path| {
            let folder = root.join(hierarchy.mount).join(path);
            if let Swap::Alone { limit, usage } = hierarchy.swap {
                // Also that of a group without a limit of memory.
                swap = swap.min(unused(&folder, limit, usage).unwrap_or(u64::MAX));
            }
            let limit = number(&folder.join(hierarchy.limit))?;
            let usage = number(&folder.join(hierarchy.usage))?;
            let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
            let reclaimable: u64 = hierarchy.reclaimable.iter().filter_map(|name| value(&stat, name)).sum();
            let memory = limit.saturating_sub(usage.saturating_sub(reclaimable));
            let both = match hierarchy.swap {
                Swap::WithMemory { limit, usage } => unused(&folder, limit, usage),
                Swap::Alone { .. } => None,
            };
            let most = both.map_or(u64::MAX, |both| both.saturating_add(reclaimable));
            Some((memory.saturating_add(swap).min(most), Path::new("/").join(path)))
        })
        .collect()
}

fn unused(folder: &Path, limit: &str, usage: &str) -> Option<u64> {
    Some(number(&folder.join(limit))?.saturating_sub(number(&folder.join(usage))?))
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The value of a line `name 123`.
fn value(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
