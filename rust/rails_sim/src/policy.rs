//! How transfers are spread: by the shipped plan, by rivals as they are published, and by defects that the rows must find.

use serde::Serialize;

/// A way to spread transfers over rails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The shipped plan, state and Quiesce machines.
    Ours,
    /// Our model of round-robin: slices of 64 KiB, each on the next NIC, as Mooncake's transfer engine and TENT without smart
    /// scheduling do.
    RoundRobin,
    /// Our model of a hash: each transfer on one NIC.
    Hash,
    /// Our model of TENT's slice spraying: slices of 64 KiB, each on the NIC with the least (bytes in flight + size) / smoothed rate.
    LeastLoaded,
    /// A defect: ours, with round-robin in the place of the plan.
    OursRoundRobin,
    /// A defect: ours, and no probe is sent; the machine is told that each was answered.
    OursWithoutProbe,
    /// A defect: ours, and no probe is sent; the machine is told of no answer.
    OursUnasked,
    /// A defect: ours, and parts move when the queue pair here is drained, whatever the peer says.
    OursWithoutQuiesce,
}

/// How transfers are dealt to rails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dealing {
    Plan,
    RoundRobin,
    Hash,
    LeastLoaded,
}

impl Policy {
    /// Those that are no defects.
    pub const COMPARED: [Self; 4] = [Self::Ours, Self::RoundRobin, Self::Hash, Self::LeastLoaded];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::RoundRobin => "our model of round-robin",
            Self::Hash => "our model of one NIC by hash",
            Self::LeastLoaded => "our model of least loaded",
            Self::OursRoundRobin => "defect: round-robin",
            Self::OursWithoutProbe => "defect: no probe",
            Self::OursUnasked => "defect: paused unasked",
            Self::OursWithoutQuiesce => "defect: no Quiesce",
        }
    }

    pub(crate) fn dealing(self) -> Dealing {
        match self {
            Self::RoundRobin | Self::OursRoundRobin => Dealing::RoundRobin,
            Self::Hash => Dealing::Hash,
            Self::LeastLoaded => Dealing::LeastLoaded,
            _ => Dealing::Plan,
        }
    }

    /// Whether failing rails are noticed. What is published of the rivals waits for the NIC's own time-out, 67 ms eight times over, which no
    /// run lasts.
    pub(crate) fn watches(self) -> bool {
        !matches!(self, Self::RoundRobin | Self::Hash | Self::LeastLoaded)
    }
}
