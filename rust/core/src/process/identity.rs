//! Which process an engine says that it runs in.

use rustix::process::{Pid, getpid};
use sha2::{Digest, Sha256};

/// A process as it names itself to peers. A pid alone says little: another host, container or later process may have it
/// too, and the end of that one must not end a healthy connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// In the process's own pid namespace; 0 if nothing is claimed.
    pub pid: u32,
    /// Hash over what tells the process from every other one with that pid: the running kernel, the pid namespace, and
    /// when the process started. 0 if the system does not tell them.
    pub fingerprint: u64,
}

impl ProcessIdentity {
    /// That of this process, asked anew each time: a forked child is a process of its own.
    pub fn own() -> Self {
        let pid = getpid();
        match fingerprint(pid) {
            Some(fingerprint) => Self { pid: pid.as_raw_nonzero().get().unsigned_abs(), fingerprint },
            None => Self::default(),
        }
    }

    /// Whether it is that of this process.
    pub(crate) fn is_own(self) -> bool {
        self.pid().is_some() && self == Self::own()
    }

    /// The pid, unless nothing is claimed.
    pub(super) fn pid(self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.pid).ok()?).filter(|_| self.fingerprint != 0)
    }

    /// Whether the process that has the pid here and now is the one that has claimed so. It must be known to live on after
    /// this, or another one may have taken its pid meanwhile.
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
    // Of all numbers only 0 has another meaning.
    hash.finalize().first_chunk().map(|bytes| u64::from_le_bytes(*bytes).max(1))
}

/// The field `starttime` of `/proc/PID/stat`, in clock ticks since boot. The name of the program stands in parentheses
/// before it, and may hold any characters.
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
