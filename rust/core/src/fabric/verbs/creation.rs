//! How much of a queue pair a device grants: what is asked for is lowered until the device accepts it.
//!
//! The limits that a device reports hold one by one, not together: a send queue of the reported depth with entries of the reported
//! number may not fit. Drivers refuse with EINVAL or ENOMEM and do not say what was too much.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::fabric::QueuePairCaps;

/// A shorter send queue than this is not tried: a device that refuses it refuses for another reason.
pub(super) const LEAST_DEPTH: u32 = 16;

/// What a device has turned out to grant, so that later queue pairs need one command and not the whole search.
#[derive(Debug)]
pub(super) struct Granted {
    // Both only save commands: written and read by threads that create queue pairs, Relaxed.
    depth: AtomicU32,
    inline: AtomicU32,
}

impl Default for Granted {
    fn default() -> Self {
        Self { depth: AtomicU32::new(u32::MAX), inline: AtomicU32::new(u32::MAX) }
    }
}

impl Granted {
    /// Calls `attempt` with `wanted`, and while that is too much for the device with less: first without inline room, which shows
    /// whether that was it, then with a shorter send queue. Answers what was made, and what it was made with; else the errno of
    /// the last attempt.
    pub(super) fn create<T>(
        &self,
        wanted: &QueuePairCaps,
        mut attempt: impl FnMut(&QueuePairCaps) -> Result<T, i32>,
    ) -> Result<(T, QueuePairCaps), i32> {
        let mut asked = QueuePairCaps {
            send_depth: wanted.send_depth.min(self.depth.load(Ordering::Relaxed)),
            max_inline: wanted.max_inline.min(self.inline.load(Ordering::Relaxed)),
            ..*wanted
        };
        loop {
            let errno = match attempt(&asked) {
                Ok(made) => return Ok(self.remember_depth(wanted, (made, asked))),
                Err(errno) => errno,
            };
            if !matches!(errno, libc::EINVAL | libc::ENOMEM) {
                return Err(errno);
            }
            let without = QueuePairCaps { max_inline: 0, ..asked };
            if asked.max_inline > 0
                && let Ok(made) = attempt(&without)
            {
                return Ok(self.remember_depth(wanted, self.widen(asked, (made, without), attempt)));
            }
            if asked.send_depth / 2 < LEAST_DEPTH {
                return Err(errno);
            }
            asked.send_depth /= 2;
        }
    }

    /// Later queue pairs begin with the depth that this one was lowered to. Nothing is learned where none was made: the device may have run out of
    /// queue pairs or of memory for now.
    fn remember_depth<T>(&self, wanted: &QueuePairCaps, made: (T, QueuePairCaps)) -> (T, QueuePairCaps) {
        if made.1.send_depth < wanted.send_depth {
            self.depth.fetch_min(made.1.send_depth, Ordering::Relaxed);
        }
        made
    }

    /// The most inline room below `refused` that the device grants; `made` has none.
    fn widen<T>(
        &self,
        refused: QueuePairCaps,
        made: (T, QueuePairCaps),
        mut attempt: impl FnMut(&QueuePairCaps) -> Result<T, i32>,
    ) -> (T, QueuePairCaps) {
        let mut asked = QueuePairCaps { max_inline: refused.max_inline / 2, ..refused };
        while asked.max_inline > 0 {
            if let Ok(better) = attempt(&asked) {
                self.inline.store(asked.max_inline, Ordering::Relaxed);
                return (better, asked);
            }
            asked.max_inline /= 2;
        }
        self.inline.store(0, Ordering::Relaxed);
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: QueuePairCaps = QueuePairCaps { send_depth: 512, max_sge: 4, max_inline: 64 };

    /// What a device grants that takes so much of each, and with how many commands.
    fn search(granted: &Granted, depth: u32, inline: u32) -> (Result<(u32, u32), i32>, u32) {
        let mut commands = 0;
        let found = granted.create(&WANTED, |asked| {
            commands += 1;
            if asked.send_depth <= depth && asked.max_inline <= inline { Ok(()) } else { Err(libc::EINVAL) }
        });
        (found.map(|((), caps)| (caps.send_depth, caps.max_inline)), commands)
    }

    #[test]
    fn what_is_too_much_is_lowered_and_the_rest_is_not() {
        for (depth, inline, expected) in [
            (512, 64, (512, 64)),
            (512, 20, (512, 16)),
            (512, 0, (512, 0)),
            (130, 64, (128, 64)),
            (16, 3, (16, 2)),
        ] {
            assert_eq!(search(&Granted::default(), depth, inline).0, Ok(expected));
        }
    }

    #[test]
    fn the_search_is_made_once() {
        let granted = Granted::default();
        assert!(search(&granted, 130, 20).1 > 1);
        assert_eq!(search(&granted, 130, 20), (Ok((128, 16)), 1));
    }

    #[test]
    fn a_device_that_has_run_out_is_asked_for_all_again() {
        let granted = Granted::default();
        assert_eq!(search(&granted, 0, 0).0, Err(libc::EINVAL));
        assert_eq!(search(&granted, 512, 64), (Ok((512, 64)), 1), "what it had run out of was given back");
    }

    #[test]
    fn a_device_that_refuses_all_is_not_asked_for_ever() {
        assert_eq!(search(&Granted::default(), 0, 0), (Err(libc::EINVAL), 12));
        let mut commands = 0;
        let refused: Result<((), _), _> = Granted::default().create(&WANTED, |_| {
            commands += 1;
            Err(libc::EOPNOTSUPP)
        });
        assert_eq!((refused.unwrap_err(), commands), (libc::EOPNOTSUPP, 1), "less of it would not help");
    }
}
