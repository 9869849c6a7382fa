//! What will happen, in the order of its time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What happens, and where. Ports, groups, connections, rails and lanes are named by their indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A NIC has sent the last byte of a group.
    Sent {
        nic: u32,
    },
    /// The first byte of a group is at the receiving NIC.
    Arrives {
        group: u32,
    },
    /// A NIC has received a group.
    Received {
        nic: u32,
    },
    /// The completion of a group is at the NIC that has posted it.
    Completed {
        group: u32,
    },
    /// A NIC stops, or goes on; a silent one loses probes as well.
    Stop {
        nic: u32,
        silent: bool,
    },
    Resume {
        nic: u32,
        silent: bool,
    },
    /// The load starts the next transfer of this source.
    Start {
        source: u32,
    },
    /// It is time for a connection to look at its rails.
    Look {
        connection: u32,
    },
    ProbeAnswered {
        connection: u32,
        rail: u8,
        number: u32,
        sent: u32,
    },
    DrainedHere {
        connection: u32,
        rail: u8,
        lane: u8,
    },
    /// `Quiesce` is at the peer.
    Asked {
        connection: u32,
        rail: u8,
        lane: u8,
        number: u32,
    },
    DrainedThere {
        connection: u32,
        rail: u8,
        lane: u8,
    },
    /// `Quiesced` is here.
    Quiesced {
        connection: u32,
        rail: u8,
        lane: u8,
        number: u32,
    },
    Rebuilt {
        connection: u32,
        rail: u8,
        number: u32,
    },
    /// `RailReady` is here.
    RailMade {
        connection: u32,
        rail: u8,
    },
    /// A rail that was used for the first time has its other lanes.
    LanesMade {
        connection: u32,
        rail: u8,
    },
    /// A connection hears of a port that went down or came up.
    PortChanged {
        connection: u32,
        rail: u8,
        up: bool,
    },
}

/// The events to come.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    /// The earliest first; of those of one time the one that was put there first.
    heap: BinaryHeap<Reverse<Entry>>,
    number: u64,
    /// Nanoseconds since the beginning.
    pub(crate) now: u64,
}

/// Compared by its time, then by its number, which no other one has.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: u64,
    number: u64,
    event: Event,
}

impl Agenda {
    pub(crate) fn after(&mut self, nanos: u64, event: Event) {
        self.at(self.now + nanos, event);
    }

    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.number += 1;
        self.heap.push(Reverse(Entry { at: at.max(self.now), number: self.number, event }));
    }

    /// The next event before `end`; advances the time to it.
    pub(crate) fn next(&mut self, end: u64) -> Option<Event> {
        if self.heap.peek()?.0.at >= end {
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}
