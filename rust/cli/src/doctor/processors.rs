//! Processors that this process may use, NUMA nodes, huge pages.

use flagcx_p2p::internals::topology::CpuSet;

use super::finding::Report;
use super::system::SystemRoot;
use crate::output::units;

/// Processors below which threads of the engine take time from the program.
const RECOMMENDED: usize = 4;

/// Reports them.
pub(super) fn report(root: &SystemRoot, report: &mut Report) {
    let usable = affinity(root, report);
    nodes(root, usable.as_ref(), report);
    huge_pages(root, report);
}

fn affinity(root: &SystemRoot, report: &mut Report) -> Option<CpuSet> {
    let (id, subject) = ("processors", "usable processors");
    let allowed = set(root.field("/proc/self/status", "Cpus_allowed_list"));
    let Some(allowed) = allowed else {
        report.warn(id, subject, "unknown: /proc/self/status has no Cpus_allowed_list", "mount /proc");
        return None;
    };
    let online = set(root.read("/sys/devices/system/cpu/online")).unwrap_or_else(|| allowed.clone());
    let usable = allowed.intersection(&online);
    let found = format!("{} of {} ({usable})", usable.len(), online.len());
    if usable.len() < RECOMMENDED && online.len() > usable.len() {
        report.warn(
            id,
            subject,
            format!("{found}: an affinity mask or cpuset holds this process to them"),
            "taskset, --cpuset-cpus, or a CPU request of the pod",
        );
    } else if usable.len() < RECOMMENDED {
        report.warn(
            id,
            subject,
            found,
            "FLAGCX_P2P_SPIN_US=0 and FLAGCX_P2P_WORKERS_PER_POOL=1 take least processor time",
        );
    } else {
        report.ok(id, subject, found);
    }
    Some(usable)
}

fn nodes(root: &SystemRoot, usable: Option<&CpuSet>, report: &mut Report) {
    let (id, subject) = ("numa", "NUMA nodes");
    let base = "/sys/devices/system/node";
    let is_node =
        |name: &String| name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok());
    let nodes: Vec<_> = root.names(base).into_iter().filter(is_node).collect();
    if nodes.len() < 2 {
        return report.ok(id, subject, if nodes.is_empty() { "none reported" } else { "1" });
    }
    let with_usable = nodes.iter().filter(|node| {
        let cpus = set(root.read(&format!("{base}/{node}/cpulist"))).unwrap_or_default();
        usable.is_some_and(|usable| !usable.intersection(&cpus).is_empty())
    });
    let count = with_usable.count();
    report.ok(id, subject, format!("{}, {count} of them with processors of this process", nodes.len()));
}

fn huge_pages(root: &SystemRoot, report: &mut Report) {
    let (id, subject) = ("huge-pages", "huge pages");
    let count = |name| {
        root.field("/proc/meminfo", name).and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
    };
    let (total, free) = (count("HugePages_Total").unwrap_or(0), count("HugePages_Free").unwrap_or(0));
    let size = units::bytes(count("Hugepagesize").unwrap_or(0) << 10);
    let transparent = root
        .read("/sys/kernel/mm/transparent_hugepage/enabled")
        .and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned()))
        .unwrap_or_else(|| "not offered".to_owned());
    let reserved =
        if total == 0 { "none reserved".to_owned() } else { format!("{free} of {total} free, {size} each") };
    report.ok(id, subject, format!("{reserved}; transparent ones: {transparent}"));
}

fn set(list: Option<String>) -> Option<CpuSet> {
    CpuSet::parse_list(&list?).ok().filter(|set| !set.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::system::Fixture;
    use super::*;

    fn of(files: &[(&str, &str)]) -> Report {
        let mut found = Report::default();
        report(&Fixture::new(files).root, &mut found);
        found
    }

    const ONLINE: (&str, &str) = ("sys/devices/system/cpu/online", "0-15\n");
    const NODES: [(&str, &str); 2] = [
        ("sys/devices/system/node/node0/cpulist", "0-7\n"),
        ("sys/devices/system/node/node1/cpulist", "8-15\n"),
    ];

    #[test]
    fn affinity_and_nodes() {
        let [first, second] = NODES;
        let found = of(&[("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-1\n"), ONLINE, first, second]);
        let (level, line) = found.seen("processors");
        assert!(level == Level::Warn && line.contains("2 of 16 (0-1)") && line.contains("taskset"), "{line}");
        assert!(found.seen("numa").1.contains("2, 1 of them"), "{found:?}");
        let found = of(&[("proc/self/status", "Cpus_allowed_list:\t0-15\n"), ONLINE]);
        assert_eq!(found.seen("processors").0, Level::Ok);
        assert_eq!(found.seen("numa").0, Level::Ok);
    }

    #[test]
    fn few_processors_of_a_small_machine() {
        let found = of(&[
            ("proc/self/status", "Cpus_allowed_list:\t0-1\n"),
            ("sys/devices/system/cpu/online", "0-1"),
        ]);
        let (level, line) = found.seen("processors");
        assert!(level == Level::Warn && line.contains("FLAGCX_P2P_SPIN_US=0"), "{line}");
        assert_eq!(of(&[]).seen("processors").0, Level::Warn);
    }

    #[test]
    fn pages() {
        let meminfo = "MemTotal: 1 kB\nHugePages_Total:      16\nHugePages_Free:        3\nHugepagesize:       2048 kB\n";
        let found = of(&[
            ("proc/meminfo", meminfo),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
        ]);
        let (_, line) = found.seen("huge-pages");
        assert!(line.ends_with("3 of 16 free, 2.00 MiB each; transparent ones: madvise"), "{line}");
        assert!(of(&[]).seen("huge-pages").1.contains("none reserved; transparent ones: not offered"));
    }
}
