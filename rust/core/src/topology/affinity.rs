//! On which CPUs a NIC's workers run.

use std::io;
use std::path::Path;

use super::{CpuSet, Sysfs};

/// The CPUs for workers of a NIC near the CPUs `local`, in a process that may use `inherited`.
///
/// The intersection of both; all of `inherited` when that is empty or `local` is unknown (empty). Workers are bound to the
/// whole set, never each to one CPU of it: a core that another process uses must not stall a NIC.
pub fn worker_cpus(local: &CpuSet, inherited: &CpuSet) -> CpuSet {
    let both = local.intersection(inherited);
    if both.is_empty() { inherited.clone() } else { both }
}

/// The CPUs for workers of the NIC at a sysfs path, within those of the calling thread. Empty when the system does not
/// report those.
pub fn cpus_near(sysfs: &Sysfs, nic_path: Option<&Path>) -> CpuSet {
    let local = nic_path.and_then(|path| sysfs.local_cpus(path)).unwrap_or_default();
    current_affinity().map(|inherited| worker_cpus(&local, &inherited)).unwrap_or_default()
}

/// The CPUs that the calling thread may use now. Taken before pinning, this is what it inherited.
pub fn current_affinity() -> io::Result<CpuSet> {
    let set = rustix::thread::sched_getaffinity(None)?;
    let may_use = |cpu: &u32| usize::try_from(*cpu).is_ok_and(|cpu| set.is_set(cpu));
    Ok((0..kernel_limit()).filter(may_use).collect())
}

/// Binds the calling thread to `cpus`. An empty set changes nothing.
///
/// Fails with `EINVAL` when none of them may be used, and for CPU numbers of 1024 and more.
pub fn pin_current_thread(cpus: &CpuSet) -> io::Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = rustix::thread::CpuSet::new();
    for cpu in cpus.iter() {
        match usize::try_from(cpu) {
            Ok(index) if cpu < kernel_limit() => set.set(index),
            _ => return Err(rustix::io::Errno::INVAL.into()),
        }
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// CPUs that the fixed-size set of the system interface has room for.
fn kernel_limit() -> u32 {
    u32::try_from(rustix::thread::CpuSet::MAX_CPU).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> CpuSet {
        CpuSet::parse_list(text).unwrap()
    }

    #[test]
    fn local_cpus_within_the_inherited_ones() {
        for (local, inherited, expected) in [
            ("0-15", "0-63", "0-15"),
            ("0-15", "8-23", "8-15"),
            ("0-15", "16-31", "16-31"),
            ("", "0-3", "0-3"),
            ("4", "0-7", "4"),
        ] {
            assert_eq!(
                worker_cpus(&set(local), &set(inherited)).to_string(),
                expected,
                "{local} in {inherited}"
            );
        }
    }

    #[test]
    fn a_thread_can_be_bound_and_says_so() {
        std::thread::spawn(|| {
            let inherited = current_affinity().unwrap();
            assert!(!inherited.is_empty());
            pin_current_thread(&CpuSet::default()).unwrap();
            assert_eq!(current_affinity().unwrap(), inherited);
            let first: CpuSet = inherited.iter().take(1).collect();
            pin_current_thread(&first).unwrap();
            assert_eq!(current_affinity().unwrap(), first);
            assert!(pin_current_thread(&set("2000")).is_err());
            assert_eq!(current_affinity().unwrap(), first);
        })
        .join()
        .unwrap();
    }
}
