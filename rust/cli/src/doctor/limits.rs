//! Limits of this process, from /proc/self/limits.

use super::finding::Report;
use super::system::SystemRoot;
use crate::output::units;

/// Locked memory below which ordinary registrations fail.
const MEMLOCK_RECOMMENDED: u64 = 1 << 30;
/// Peers below which a limit is worth a warning.
const PEERS_RECOMMENDED: u64 = 200;
/// Descriptors of an engine without peers, and of the program around it.
const WITHOUT_PEERS: u64 = 64;
/// Descriptors that a peer takes over TCP, and one on this host.
const PER_TCP_PEER: u64 = 4;
const PER_LOCAL_PEER: u64 = 6;

/// Reports them. Locked memory matters where RDMA devices are in use.
pub(super) fn report(root: &SystemRoot, verbs: bool, report: &mut Report) {
    memlock(root, verbs, report);
    open_files(root, report);
}

fn memlock(root: &SystemRoot, verbs: bool, report: &mut Report) {
    let (id, subject) = ("memlock", "memlock");
    match limit(root, "Max locked memory") {
        None => report.warn(id, subject, "unknown: /proc/self/limits has no such line", "mount /proc"),
        Some(None) => report.ok(id, subject, "unlimited"),
        Some(Some(bytes)) if !verbs => {
            report.ok(id, subject, format!("{}; matters with an RDMA device only", units::bytes(bytes)));
        }
        Some(Some(bytes)) if bytes < MEMLOCK_RECOMMENDED => report.warn(
            id,
            subject,
            format!("registering more than {} fails", units::bytes(bytes)),
            "ulimit -l unlimited, LimitMEMLOCK=infinity, or --ulimit memlock=-1 for a container",
        ),
        Some(Some(bytes)) => report.ok(id, subject, units::bytes(bytes)),
    }
}

fn open_files(root: &SystemRoot, report: &mut Report) {
    let (id, subject) = ("open-files", "open files");
    match limit(root, "Max open files") {
        None => report.warn(id, subject, "unknown: /proc/self/limits has no such line", "mount /proc"),
        Some(None) => report.ok(id, subject, "unlimited"),
        Some(Some(limit)) => {
            let left = limit.saturating_sub(WITHOUT_PEERS);
            let (tcp, local) = (left / PER_TCP_PEER, left / PER_LOCAL_PEER);
            let found = format!(
                "{limit}, enough for about {tcp} peers over TCP ({PER_TCP_PEER} descriptors each) or {local} of this \
                 host ({PER_LOCAL_PEER} each)"
            );
            if local < PEERS_RECOMMENDED {
                report.warn(id, subject, found, "raise nofile (ulimit -n 65536, or LimitNOFILE=65536)");
            } else {
                report.ok(id, subject, found);
            }
        }
    }
}

/// The soft limit of that name; the inner `None` is unlimited.
fn limit(root: &SystemRoot, name: &str) -> Option<Option<u64>> {
    let text = root.read("/proc/self/limits")?;
    let soft = text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.to_owned();
    if soft == "unlimited" { Some(None) } else { soft.parse().ok().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::system::Fixture;
    use super::*;

    fn of(memlock: &str, files: &str, verbs: bool) -> Report {
        let limits = format!(
            "Limit                     Soft Limit           Hard Limit           Units\n\
             Max open files            {files}                1048576              files\n\
             Max locked memory         {memlock}              unlimited            bytes\n"
        );
        let fixture = Fixture::new(&[("proc/self/limits", &limits)]);
        let mut found = Report::default();
        report(&fixture.root, verbs, &mut found);
        found
    }

    #[test]
    fn locked_memory() {
        let (level, line) = of("65536", "1024", true).seen("memlock");
        assert_eq!(level, Level::Warn);
        assert!(line.contains("more than 64.00 KiB fails; ulimit -l unlimited"), "{line}");
        assert_eq!(of("unlimited", "1024", true).seen("memlock").0, Level::Ok);
        assert_eq!(of("65536", "1024", false).seen("memlock").0, Level::Ok, "no device pins memory");
    }

    #[test]
    fn open_files_as_a_number_of_peers() {
        let (level, line) = of("unlimited", "1024", true).seen("open-files");
        assert_eq!(level, Level::Warn);
        assert!(line.contains("about 240 peers over TCP") && line.contains("160 of this host"), "{line}");
        assert_eq!(of("unlimited", "65536", true).seen("open-files").0, Level::Ok);
        assert_eq!(of("unlimited", "unlimited", true).seen("open-files").0, Level::Ok);
    }

    #[test]
    fn a_machine_without_proc() {
        let fixture = Fixture::new(&[]);
        let mut found = Report::default();
        report(&fixture.root, true, &mut found);
        assert!(found.findings().all(|finding| finding.level == Level::Warn));
    }
}
