//! The identity of an engine's process.

use rustix::process::{Pid, getpid};
use sha2::{Digest, Sha256};

/// The identity of a process, announced to peers. A pid alone is not enough: another host, container or later process
/// may have it too, and its end must not end a healthy connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// The pid in the process's own pid namespace; 0 if none is announced.
    pub pid: u32,
    /// Hash over the running kernel, the pid namespace and the start time of the process, which distinguish it from
    /// every other process with that pid. 0 if the system does not report them.
    pub fingerprint: u64,
}

impl ProcessIdentity {
    /// The identity of this process, read anew each time, because a forked child has its own.
    pub fn own() -> Self {
        let pid = getpid();
        match fingerprint(pid) {
            Some(fingerprint) => Self { pid: pid.as_raw_nonzero().get().unsigned_abs(), fingerprint },
            None => Self::default(),
        }
    }

    /// The identity of a process that is alive.
    #[cfg(test)]
    pub(crate) fn of(pid: u32) -> Self {
        let fingerprint = Pid::from_raw(pid.cast_signed()).and_then(fingerprint);
        Self { pid, fingerprint: fingerprint.unwrap_or_default() }
    }

    /// Whether it is the identity of this process.
    pub(crate) fn is_own(self) -> bool {
        self.pid().is_some() && self == Self::own()
    }

    /// The pid, if one is announced.
    pub(super) fn pid(self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.pid).ok()?).filter(|_| self.fingerprint != 0)
    }

    /// Whether the process that has the pid here and now is the announced one. The caller must check afterwards that
    /// it is still alive, because another one may have got its pid meanwhile.
    pub(super) fn matches_running_process(self) -> bool {
        self.pid().and_then(fingerprint) == Some(self.fingerprint)
    }
}

fn fingerprint(pid: Pid) -> Option<u64> {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let pid = pid.as_raw_nonzero().get();
    let start = start_time(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    let mut hash = Sha256::new_with_prefix(b"flagcx-p2p/process/1/");
    hash.update(boot);
    hash.update(namespace.as_os_str().as_encoded_bytes());
    hash.update(pid.to_le_bytes());
    hash.update(start.to_le_bytes());
    // 0 means that no fingerprint is known.
    hash.finalize().first_chunk().map(|bytes| u64::from_le_bytes(*bytes).max(1))
}

/// The field `starttime` of `/proc/PID/stat`, in clock ticks since boot. The name of the program precedes it in
/// parentheses, and may contain any characters.
fn start_time(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_distinguished_from_others() {
        let own = ProcessIdentity::own();
        assert_eq!(own, ProcessIdentity::own());
        assert_eq!(own.pid, std::process::id());
        assert!(own.matches_running_process());
        assert!(!ProcessIdentity { fingerprint: own.fingerprint ^ 1, ..own }.matches_running_process());
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get().unsigned_abs();
        assert!(
            !ProcessIdentity { pid: parent, ..own }.matches_running_process(),
            "the fingerprint is that of another process"
        );
        for nothing in [ProcessIdentity::default(), ProcessIdentity { pid: u32::MAX, fingerprint: 1 }] {
            assert!(nothing.pid().is_none() && !nothing.matches_running_process());
        }
        assert!(ProcessIdentity { fingerprint: 0, ..own }.pid().is_none());
    }

    #[test]
    fn the_name_of_a_program_may_look_like_fields() {
        let fields = (3..=52).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(start_time(&format!("7 (a) b ) {fields}\n")), Some(22));
        assert_eq!(start_time("7 (a) R 1"), None);
        assert_eq!(start_time(""), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = start_time(&text);
        }
    }
}
