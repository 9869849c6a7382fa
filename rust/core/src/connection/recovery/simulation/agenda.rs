//! What will happen, in the order of its time.

use std::cmp::Ordering;

use super::faults::Fault;

/// What happens, and where.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Fault(Fault),
    Submit {
        end: usize,
    },
    Cancel {
        part: u32,
    },
    /// The next frame for this end arrives, or the end of all frames.
    Delivery {
        end: usize,
    },
    KeepaliveLost {
        end: usize,
    },
    Unblocked {
        end: usize,
    },
    PortUp {
        end: usize,
        rail: usize,
        since: u64,
    },
    DeviceSays {
        end: usize,
    },
    /// The leader adds a rail, or the follower asks for one.
    AddRail {
        end: usize,
    },
    /// The task of an end sees that the second rail is used.
    Used {
        end: usize,
    },
    RailOpened {
        end: usize,
        rail: usize,
        lanes: usize,
    },
    TrialCreated {
        end: usize,
        pair: u32,
    },
    TrialWritten {
        end: usize,
        pair: u32,
    },
    /// A rail that was left is used again.
    Resume {
        end: usize,
        rail: usize,
    },
    /// It is time for all to be settled.
    Settled,
    Arrives {
        part: u32,
        post: u32,
        queue_pair: u32,
    },
    Completes {
        part: u32,
        queue_pair: u32,
    },
    Unanswered {
        queue_pair: u32,
    },
    Drains {
        queue_pair: u32,
    },
    SaysDrained {
        queue_pair: u32,
    },
    DrainLimit {
        queue_pair: u32,
    },
    /// The command to destroy it has ended.
    Destroyed {
        queue_pair: u32,
    },
    Created {
        end: usize,
        lane: usize,
        attempt: u32,
    },
    Connected {
        end: usize,
        lane: usize,
        attempt: u32,
    },
    DiscardLate {
        end: usize,
        lane: usize,
        attempt: u32,
    },
    Install {
        end: usize,
        lane: usize,
        attempt: u32,
    },
}

/// An event with its time. Of those of one time the first one that was put there comes first.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) at: u64,
    pub(super) number: u64,
    pub(super) event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest, which the heap returns first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}
