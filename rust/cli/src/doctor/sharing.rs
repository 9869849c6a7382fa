//! What processes of one host need to copy from each other: Yama's rule, memfd, /dev/shm.

use rustix::fs::MemfdFlags;

use super::finding::Report;
use super::system::SystemRoot;
use crate::output::units;

/// The space of a file system, in bytes.
#[derive(Clone, Copy, Debug)]
struct Space {
    size: u64,
    free: u64,
}

/// Below this, programs that put tensors there fail first: the default of containers.
const SHM_RECOMMENDED: u64 = 1 << 30;

/// Reports them.
pub(super) fn report(root: &SystemRoot, report: &mut Report) {
    yama(root, report);
    memfd(rustix::fs::memfd_create(c"doctor", MemfdFlags::CLOEXEC).map(drop), report);
    shm(space(root), report);
}

fn yama(root: &SystemRoot, report: &mut Report) {
    let (id, subject) = ("ptrace-scope", "copies between processes, by Yama");
    let slower = "processes of this host use TCP instead of cross-memory copies";
    match root.read("/proc/sys/kernel/yama/ptrace_scope").as_deref() {
        None => report.ok(id, subject, "not restricted (no Yama)"),
        Some("0") => report.ok(id, subject, "not restricted (ptrace_scope 0)"),
        Some("1") => report.ok(
            id,
            subject,
            "allowed after the peer's consent, which the engine gives (ptrace_scope 1)",
        ),
        Some("2") => report.warn(
            id,
            subject,
            format!("{slower} unless privileged (ptrace_scope 2)"),
            "sysctl kernel.yama.ptrace_scope=1, or give the processes CAP_SYS_PTRACE",
        ),
        Some("3") => report.warn(
            id,
            subject,
            format!("{slower} (ptrace_scope 3)"),
            "boot with another value: 3 cannot be lowered",
        ),
        Some(other) => report.warn(
            id,
            subject,
            format!("unknown ptrace_scope {other}"),
            "sysctl kernel.yama.ptrace_scope=1",
        ),
    }
}

fn memfd(created: rustix::io::Result<()>, report: &mut Report) {
    match created {
        Ok(()) => report.ok("memfd", "memory to share (memfd_create)", "can be made"),
        Err(error) => report.warn(
            "memfd",
            "memory to share (memfd_create)",
            format!("cannot be made: {error}; what engines allocate is copied, not mapped by peers"),
            "allow memfd_create in the seccomp profile",
        ),
    }
}

fn space(root: &SystemRoot) -> Option<Space> {
    let found = rustix::fs::statvfs(root.path("/dev/shm")).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some(Space { size: bytes(found.f_blocks), free: bytes(found.f_bavail) })
}

/// The engine shares by memfd, which needs no /dev/shm; frameworks around it do.
fn shm(space: Option<Space>, report: &mut Report) {
    let (id, subject) = ("dev-shm", "/dev/shm");
    match space {
        None => report.ok(id, subject, "not there; the engine does not need it"),
        Some(Space { size, free }) if size < SHM_RECOMMENDED => report.warn(
            id,
            subject,
            format!(
                "{}, {} free: frameworks that share tensors there fail, the engine does not need it",
                units::bytes(size),
                units::bytes(free)
            ),
            "--shm-size 8g for a container, or mount -o remount,size=8g /dev/shm",
        ),
        Some(Space { size, free }) => {
            report.ok(id, subject, format!("{}, {} free", units::bytes(size), units::bytes(free)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::system::Fixture;
    use super::*;

    #[test]
    fn every_ptrace_scope() {
        for (scope, level) in [
            (None, Level::Ok),
            (Some("0"), Level::Ok),
            (Some("1"), Level::Ok),
            (Some("2"), Level::Warn),
            (Some("3"), Level::Warn),
            (Some("9"), Level::Warn),
        ] {
            let files: Vec<_> =
                scope.iter().map(|scope| ("proc/sys/kernel/yama/ptrace_scope", *scope)).collect();
            let mut found = Report::default();
            yama(&Fixture::new(&files).root, &mut found);
            assert_eq!(found.seen("ptrace-scope").0, level, "{scope:?}");
        }
    }

    #[test]
    fn shared_memory() {
        let mut found = Report::default();
        memfd(Err(rustix::io::Errno::PERM), &mut found);
        shm(Some(Space { size: 64 << 20, free: 1 << 20 }), &mut found);
        let (level, line) = found.seen("dev-shm");
        assert!(
            level == Level::Warn && line.contains("64.00 MiB, 1.00 MiB free") && line.contains("--shm-size"),
            "{line}"
        );
        let (level, line) = found.seen("memfd");
        assert!(level == Level::Warn && line.contains("not permitted") && line.contains("seccomp"), "{line}");
        let mut found = Report::default();
        shm(None, &mut found);
        memfd(Ok(()), &mut found);
        assert!(found.findings().all(|finding| finding.level == Level::Ok));
        assert!(
            space(&Fixture::new(&[("dev/shm/x", "")]).root).is_some_and(|space| space.size >= space.free)
        );
    }
}
