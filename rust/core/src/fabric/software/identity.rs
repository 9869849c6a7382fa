//! How peers tell this process from others.

use crate::fork::PerProcess;

/// Said to every peer in the hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) pid: u32,
    pub(super) uid: u32,
    /// The same in all processes of a running kernel, whatever their containers; zero when it cannot be read.
    pub(super) boot_id: [u8; 16],
    /// Random, so that a process is never taken for another one that had its pid.
    pub(super) incarnation: u64,
    /// Random bytes that lie at [`Identity::probe_address`]: a peer that reads them there has the right process.
    pub(super) probe: [u8; 16],
    pub(super) probe_address: u64,
}

impl Identity {
    /// In place of a process that says nothing of itself.
    pub(super) const NONE: Self =
        Self { pid: 0, uid: 0, boot_id: [0; 16], incarnation: 0, probe: [0; 16], probe_address: 0 };

    /// This process.
    pub(super) fn own() -> Self {
        static PROBE: PerProcess<([u8; 16], u64)> =
            PerProcess::new(|| (random(), u64::from_ne_bytes(random())));
        let (probe, incarnation) = PROBE.get();
        Self {
            pid: std::process::id(),
            uid: rustix::process::getuid().as_raw(),
            boot_id: boot_id(),
            incarnation: *incarnation,
            probe: *probe,
            probe_address: probe.as_ptr() as u64,
        }
    }

    /// Whether `other` may run under the same kernel: false where both say what it is, and it is not the same. A process
    /// without /proc does not know; then the attempt to reach the other's Unix socket shows it.
    pub(super) fn may_share_host(&self, other: &Self) -> bool {
        self.boot_id == other.boot_id || [self.boot_id, other.boot_id].contains(&[0; 16])
    }
}

/// Random bytes that tell things apart. What protects something takes those of [`crate::auth::random`].
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if getrandom::fill(&mut bytes).is_err() {
        // Only a kernel without the call, or one not yet seeded, gets here; the hasher's keys are random too.
        use std::hash::{BuildHasher, Hasher};
        for chunk in bytes.chunks_mut(8) {
            let number = std::hash::RandomState::new().build_hasher().finish().to_ne_bytes();
            chunk.iter_mut().zip(number).for_each(|(to, from)| *to = from);
        }
    }
    bytes
}

fn boot_id() -> [u8; 16] {
    static BOOT_ID: PerProcess<[u8; 16]> = PerProcess::new(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        parse_boot_id(&text).unwrap_or_default()
    });
    *BOOT_ID.get()
}

fn parse_boot_id(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|character| *character != '-').collect();
    (digits.len() == 32).then_some(())?;
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_of_a_process_stays_the_same() {
        assert_eq!(Identity::own(), Identity::own());
        assert!(Identity::own().may_share_host(&Identity::own()));
        assert_ne!(Identity::own().incarnation, 0);
        let of = |boot_id| Identity { boot_id, ..Identity::own() };
        assert!(!of([1; 16]).may_share_host(&of([2; 16])));
        assert!(of([0; 16]).may_share_host(&of([2; 16])) && of([1; 16]).may_share_host(&of([0; 16])));
    }

    #[test]
    fn boot_ids_are_read_as_the_kernel_prints_them() {
        let id = parse_boot_id("00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!(id[..3], [0x00, 0x11, 0x22]);
        assert_eq!(parse_boot_id("nonsense"), None);
        assert_eq!(parse_boot_id(""), None);
    }
}
