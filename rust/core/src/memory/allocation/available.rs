//! How much memory the process can still be given. Reserving more would not fail: the kernel would end processes for it.

use std::fs;
use std::path::Path;

use super::cgroup;

/// Bytes that are left, and of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Available {
    pub(super) bytes: u64,
    /// `of the host's memory`, or of which control group's.
    pub(super) limit: String,
    /// What to try.
    pub(super) hint: &'static str,
}

/// The narrowest limit; `None` where the kernel tells none. `root`: where /proc and /sys are.
pub(super) fn available(root: &Path) -> Option<Available> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let swap = kibibytes(&meminfo, "SwapFree:").unwrap_or(0);
    let host = kibibytes(&meminfo, "MemAvailable:").map(|free| Available {
        bytes: free.saturating_add(swap),
        limit: "of the host's memory".to_owned(),
        hint: "ask for less, or end other programs",
    });
    let groups = cgroup::limits(root).into_iter().map(|(left, group)| Available {
        bytes: left.saturating_add(swap),
        limit: format!("of what control group {} may use", group.display()),
        hint: "ask for less, or raise the container's memory limit (memory.max)",
    });
    host.into_iter().chain(groups).min_by_key(|found| found.bytes)
}

/// The value of a line `Name:   123 kB`, in bytes.
fn kibibytes(meminfo: &str, name: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:  24000000 kB\nMemAvailable:    1000 kB\nSwapFree:         24 kB\n";

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_host_has_what_is_available_and_its_swap() {
        let root = tree(&[("proc/meminfo", MEMINFO)]);
        let found = available(root.path()).unwrap();
        assert_eq!((found.bytes, found.limit.as_str()), (1024 * 1024, "of the host's memory"));
        assert_eq!(available(Path::new("/nonexistent")), None);
        // The real one.
        assert!(available(Path::new("/")).unwrap().bytes > 0);
    }

    #[test]
    fn a_container_has_its_limit_less_what_cannot_be_taken_back() {
        let group = "sys/fs/cgroup/kube/pod";
        let root = tree(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "0::/kube/pod\n"),
            (&format!("{group}/memory.max"), "409600\n"),
            (&format!("{group}/memory.current"), "300000\n"),
            (&format!("{group}/memory.stat"), "anon 1\ninactive_file 20000\nactive_file 3000\n"),
            ("sys/fs/cgroup/kube/memory.max", "max\n"),
        ]);
        let found = available(root.path()).unwrap();
        assert_eq!(found.bytes, 409_600 - (300_000 - 23_000) + 24 * 1024);
        assert!(found.limit.contains("control group /kube/pod"), "{}", found.limit);
    }

    /// Version 1, and a path that the container does not see: its own group is the root of the mount.
    #[test]
    fn an_older_hierarchy_is_read_as_well() {
        let root = tree(&[
            ("proc/meminfo", MEMINFO),
            ("proc/self/cgroup", "4:memory:/docker/1234\n1:cpu:/\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "65536\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "70000\n"),
            ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 0\n"),
        ]);
        let found = available(root.path()).unwrap();
        assert_eq!((found.bytes, found.limit.contains("group /")), (24 * 1024, true));
    }

    #[test]
    fn malformed_files_are_no_limit() {
        let root = tree(&[
            ("proc/meminfo", "MemAvailable: many kB\nSwapFree: 99999999999999999999 kB"),
            ("proc/self/cgroup", "\n0:\n::::\n4:memory\n0::relative\n"),
            ("sys/fs/cgroup/memory.max", "-1"),
        ]);
        assert_eq!(available(root.path()), None);
    }
}
