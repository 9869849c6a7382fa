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
    let groups = cgroup::limits(root, swap).into_iter().map(|(bytes, group)| Available {
        bytes,
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

    /// A container that may not swap has none of the host's swap, whichever group around it says so.
    #[test]
    fn a_container_has_no_more_swap_than_it_may_use() {
        let (outer, inner) = ("sys/fs/cgroup/kube", "sys/fs/cgroup/kube/pod");
        let left = |swap_of_outer: &str, swap_of_inner: &str| {
            let root = tree(&[
                ("proc/meminfo", "MemAvailable: 1000000 kB\nSwapFree: 1000000 kB\n"),
                ("proc/self/cgroup", "0::/kube/pod\n"),
                (&format!("{outer}/memory.swap.max"), swap_of_outer),
                (&format!("{outer}/memory.swap.current"), "100\n"),
                (&format!("{inner}/memory.max"), "409600\n"),
                (&format!("{inner}/memory.current"), "9600\n"),
                (&format!("{inner}/memory.swap.max"), swap_of_inner),
                (&format!("{inner}/memory.swap.current"), "1000\n"),
            ]);
            available(root.path()).unwrap().bytes
        };
        assert_eq!(left("max\n", "0\n"), 400_000);
        assert_eq!(left("max\n", "5000\n"), 404_000);
        assert_eq!(left("0\n", "max\n"), 400_000);
        assert_eq!(left("max\n", "max\n"), 400_000 + (1_000_000 << 10));
    }

    #[test]
    fn an_older_hierarchy_limits_memory_and_swap_together() {
        let group = "sys/fs/cgroup/memory";
        let left = |both: &str| {
            let root = tree(&[
                ("proc/meminfo", "MemAvailable: 1000000 kB\nSwapFree: 1000000 kB\n"),
                ("proc/self/cgroup", "4:memory:/\n"),
                (&format!("{group}/memory.limit_in_bytes"), "100000\n"),
                (&format!("{group}/memory.usage_in_bytes"), "60000\n"),
                (&format!("{group}/memory.stat"), "total_inactive_file 1000\n"),
                (&format!("{group}/memory.memsw.limit_in_bytes"), both),
                (&format!("{group}/memory.memsw.usage_in_bytes"), "80000\n"),
            ]);
            available(root.path()).unwrap().bytes
        };
        assert_eq!(left("100000\n"), 21_000);
        assert_eq!(left("150000\n"), 71_000);
        assert_eq!(left("9223372036854771712\n"), 41_000 + (1_000_000 << 10));
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
