//! The states of a rail, and the limits of its machine.

use std::fmt;

use super::MILLISECOND;

/// Whether a rail may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RailState {
    /// It takes parts.
    Up,
    /// It takes none until this time at least; then a probe decides.
    Paused(
        /// Nanoseconds of the driver's clock.
        u64,
    ),
    /// It takes none until its port is up again, or for ever if its device is lost.
    Down,
}

/// Why a rail was paused or went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// It completed nothing, and did not answer a probe.
    Silent,
    /// Too many of its requests failed within the window.
    Errors,
    /// The port at one of its ends went down.
    PortDown,
    /// The device at one of its ends is lost.
    DeviceLost,
}

impl PauseReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Silent, Self::Errors, Self::PortDown, Self::DeviceLost];

    /// Its name in metrics and JSON: `silent`, `errors`, `port_down` or `device_lost`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Errors => "errors",
            Self::PortDown => "port_down",
            Self::DeviceLost => "device_lost",
        }
    }
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "it completed nothing and did not answer a probe",
            Self::Errors => "too many of its requests failed",
            Self::PortDown => "the port at one of its ends went down",
            Self::DeviceLost => "the device at one of its ends is lost",
        })
    }
}

/// The limits of a rail's machine; times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RailLimits {
    /// A rail that completes nothing for less than this is not silent.
    pub silence: u64,
    /// Nor is one that completes nothing for less than so many of its usual gaps between two completions.
    pub gaps: u64,
    /// How long a probe may take.
    pub answer: u64,
    /// So many failures within `window` pause a rail.
    pub errors: u32,
    /// See `errors`. Also the least time for which a rail must have worked before its pauses are short again.
    pub window: u64,
    /// The first pause; each further one is twice as long as the one before.
    pub first_pause: u64,
    /// The longest pause of a rail that does not answer: to ask it again costs a probe.
    pub longest_silent_pause: u64,
    /// The longest pause of a rail that answers and fails: to use it again costs a rebuild, and moves parts twice.
    pub longest_pause: u64,
}

impl Default for RailLimits {
    fn default() -> Self {
        Self {
            silence: 2 * MILLISECOND,
            gaps: 8,
            answer: 3 * MILLISECOND,
            errors: 2,
            window: 100 * MILLISECOND,
            first_pause: 4 * MILLISECOND,
            longest_silent_pause: 8 * MILLISECOND,
            longest_pause: 1_000 * MILLISECOND,
        }
    }
}

impl RailLimits {
    /// How often the counters of rails are looked at while something is under way, in nanoseconds.
    pub fn look_interval(&self) -> u64 {
        Self::interval(self.silence)
    }

    /// How often the counters of a rail are looked at while it has something under way: a quarter of the silence that is looked for,
    /// so that a look finds it at most that much too late.
    pub(super) fn interval(silence: u64) -> u64 {
        (silence / 4).max(1)
    }
}
