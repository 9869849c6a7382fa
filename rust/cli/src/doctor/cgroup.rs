//! Limits of the control group of this process, of either version: memory, processors, processes.

use super::finding::Report;
use super::system::SystemRoot;
use crate::output::units;

/// Where both versions are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Of version 1, values from here on mean no limit: the largest page-aligned one.
const UNLIMITED_V1: u64 = 1 << 60;
/// Share of a limit from which on it is worth a warning.
const NEARLY: f64 = 0.9;
/// Processors below which an engine and its peers wait for each other.
const FEW_PROCESSORS: f64 = 2.0;
/// Threads that an engine and a program around it take.
const FEW_PROCESSES: u64 = 128;

/// What is found of the group; a `None` is unlimited, or not told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Limits {
    memory: Option<u64>,
    memory_used: Option<u64>,
    processors: Option<f64>,
    processes: Option<u64>,
    processes_used: Option<u64>,
}

/// Reports them.
pub(super) fn report(root: &SystemRoot, report: &mut Report) {
    let limits = limits(root);
    memory(limits, report);
    match limits.processors {
        None => report.ok("cgroup-cpu", "cgroup processors", "no quota"),
        Some(quota) if quota < FEW_PROCESSORS => report.warn(
            "cgroup-cpu",
            "cgroup processors",
            format!(
                "{quota:.2}: threads are stopped within each period, so that latency grows to milliseconds"
            ),
            "raise the quota (--cpus, or the CPU limit of the pod)",
        ),
        Some(quota) => report.ok("cgroup-cpu", "cgroup processors", format!("{quota:.2}")),
    }
    match limits.processes {
        None => report.ok("cgroup-pids", "cgroup processes", "no limit"),
        Some(limit) => {
            let left = limit.saturating_sub(limits.processes_used.unwrap_or(0));
            let found = format!("{limit} threads and processes, {left} left");
            if left < FEW_PROCESSES {
                report.warn(
                    "cgroup-pids",
                    "cgroup processes",
                    found,
                    "raise the limit (--pids-limit, or pids.max)",
                );
            } else {
                report.ok("cgroup-pids", "cgroup processes", found);
            }
        }
    }
}

fn memory(limits: Limits, report: &mut Report) {
    let (id, subject) = ("cgroup-memory", "cgroup memory");
    let Some(limit) = limits.memory else { return report.ok(id, subject, "no limit") };
    let used = limits.memory_used.unwrap_or(0);
    let found = format!("{} of {} in use; registered memory counts", units::bytes(used), units::bytes(limit));
    if used as f64 > NEARLY * limit as f64 {
        report.warn(id, subject, found, "raise the limit (--memory, or the memory limit of the pod)");
    } else {
        report.ok(id, subject, found);
    }
}

fn limits(root: &SystemRoot) -> Limits {
    let membership = root.read("/proc/self/cgroup").unwrap_or_default();
    let unified = membership.lines().find_map(|line| line.strip_prefix("0::"));
    if let (Some(path), true) = (unified, root.exists(&format!("{MOUNT}/cgroup.controllers"))) {
        return version_2(root, path);
    }
    version_1(root, &membership)
}

/// The tightest of the group and those around it.
fn version_2(root: &SystemRoot, path: &str) -> Limits {
    let mut tightest = Limits::default();
    for group in groups_around(root, MOUNT, path) {
        let maximum = |name: &str| root.number(&format!("{group}/{name}"));
        let processors = root.read(&format!("{group}/cpu.max")).and_then(|text| {
            let (quota, period) = text.split_once(' ')?;
            Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
        });
        tightest.tighten(Limits {
            memory: maximum("memory.max"),
            memory_used: maximum("memory.current"),
            processors,
            processes: maximum("pids.max"),
            processes_used: maximum("pids.current"),
        });
    }
    tightest
}

/// Each controller has a tree of its own.
fn version_1(root: &SystemRoot, membership: &str) -> Limits {
    let mut tightest = Limits::default();
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        for controller in controllers.split(',') {
            // Several controllers of one tree: `cpu,cpuacct`, with a link of each name.
            let mount = format!("{MOUNT}/{controller}");
            for group in groups_around(root, &mount, path) {
                let number = |name: &str| root.number(&format!("{group}/{name}"));
                let mut found = Limits::default();
                match controller {
                    "memory" => {
                        found.memory = number("memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED_V1);
                        found.memory_used = number("memory.usage_in_bytes");
                    }
                    "cpu" => {
                        let quota = number("cpu.cfs_quota_us").zip(number("cpu.cfs_period_us"));
                        found.processors = quota.map(|(quota, period)| quota as f64 / period.max(1) as f64);
                    }
                    "pids" => {
                        found.processes = number("pids.max");
                        found.processes_used = number("pids.current");
                    }
                    _ => {}
                }
                tightest.tighten(found);
            }
        }
    }
    tightest
}

/// The group and those around it. In a container without a namespace of its own the path is the host's and not there: the
/// mount itself is the group then.
fn groups_around(root: &SystemRoot, mount: &str, path: &str) -> Vec<String> {
    let mut groups = Vec::new();
    let mut path = path.trim_matches('/');
    while !path.is_empty() && !path.split('/').any(|part| part == "..") {
        let group = format!("{mount}/{path}");
        if root.exists(&group) {
            groups.push(group);
        }
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    groups.push(mount.to_owned());
    groups
}

impl Limits {
    /// A limit that is lower, with the use of the group that has it.
    fn tighten(&mut self, other: Self) {
        if other.memory.is_some_and(|limit| self.memory.is_none_or(|own| limit < own)) {
            (self.memory, self.memory_used) = (other.memory, other.memory_used);
        }
        if other.processors.is_some_and(|quota| self.processors.is_none_or(|own| quota < own)) {
            self.processors = other.processors;
        }
        if other.processes.is_some_and(|limit| self.processes.is_none_or(|own| limit < own)) {
            (self.processes, self.processes_used) = (other.processes, other.processes_used);
        }
    }
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

    #[test]
    fn version_two_takes_the_tightest_of_the_groups_around() {
        let found = of(&[
            ("proc/self/cgroup", "0::/kubepods/pod1/box\n"),
            ("sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n"),
            ("sys/fs/cgroup/kubepods/pod1/box/memory.max", "max\n"),
            ("sys/fs/cgroup/kubepods/pod1/box/cpu.max", "400000 100000\n"),
            ("sys/fs/cgroup/kubepods/pod1/box/pids.max", "max\n"),
            ("sys/fs/cgroup/kubepods/pod1/memory.max", "1073741824\n"),
            ("sys/fs/cgroup/kubepods/pod1/memory.current", "1063741824\n"),
            ("sys/fs/cgroup/kubepods/pod1/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/kubepods/pids.max", "200\n"),
            ("sys/fs/cgroup/kubepods/pids.current", "150\n"),
        ]);
        let (level, line) = found.seen("cgroup-memory");
        assert!(level == Level::Warn && line.contains("of 1.00 GiB in use"), "{line}");
        let (level, line) = found.seen("cgroup-cpu");
        assert!(level == Level::Warn && line.contains("0.50"), "{line}");
        let (level, line) = found.seen("cgroup-pids");
        assert!(level == Level::Warn && line.contains("200 threads and processes, 50 left"), "{line}");
    }

    #[test]
    fn version_one() {
        let found = of(&[
            ("proc/self/cgroup", "4:memory:/box\n3:cpu,cpuacct:/box\n2:pids:/box\n0::/\n"),
            ("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "400000\n"),
            ("sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/pids/box/pids.max", "5000\n"),
            ("sys/fs/cgroup/pids/box/pids.current", "7\n"),
        ]);
        assert_eq!(found.seen("cgroup-memory").1, "cgroup memory: no limit");
        assert_eq!(found.seen("cgroup-cpu"), (Level::Ok, "cgroup processors: 4.00".to_owned()));
        assert!(found.seen("cgroup-pids").1.contains("4993 left"), "{found:?}");
    }

    #[test]
    fn a_container_that_does_not_see_its_group_and_one_without_limits() {
        let found = of(&[
            ("proc/self/cgroup", "0::/../../host/path\n"),
            ("sys/fs/cgroup/cgroup.controllers", "memory"),
            ("sys/fs/cgroup/memory.max", "2147483648"),
            ("sys/fs/cgroup/memory.current", "1"),
        ]);
        assert!(found.seen("cgroup-memory").1.contains("of 2.00 GiB in use"), "{found:?}");
        let found = of(&[("proc/self/cgroup", "1:cpu:/\n"), ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")]);
        assert!(found.findings().all(|finding| finding.level == Level::Ok), "{found:?}");
    }
}
