//! One connection: rails with lanes, and what the engine would do with the shipped machines.

use std::collections::VecDeque;

use flagcx_p2p::internals::rails::{
    Flow, Homes, MAX_RAILS, MadeRails, PathLatency, Quiesce, QuiesceAnswer, RailCounts, RailLimits, RailLoad,
    RailSet, RailTable, RateMeter,
};

use crate::agenda::Agenda;
use crate::network::{Group, Network, Work};

/// Lanes of a rail that is negotiated when a connection is made.
pub(crate) const LANES: usize = 4;

/// Lanes of a rail that is added later, once it is used: as the engine makes it, one more than the first rail has.
pub(crate) const ADDED_LANES: usize = LANES + 1;

/// Before that.
pub(crate) const UNUSED_LANES: usize = 1;

/// Requests that a lane may have outstanding.
pub(crate) const DEPTH: u32 = 256;

/// Longest group: what is longer is posted as several.
pub(crate) const LONGEST: u64 = 8 << 20;

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) index: u32,
    pub(crate) rails: Vec<Rail>,
    pub(crate) machines: RailTable,
    pub(crate) homes: Homes,
    /// Rails that are made, or being made.
    pub(crate) made: RailSet,
    /// Parts that no rail takes now.
    pub(crate) homeless: Vec<Work>,
    /// When the next look is due.
    pub(crate) look_at: Option<u64>,
    pub(crate) under_way: u64,
}

#[derive(Debug)]
pub(crate) struct Rail {
    /// The NICs at both ends.
    pub(crate) here: u32,
    pub(crate) there: u32,
    pub(crate) lanes: Vec<Lane>,
    is_used: bool,
    pub(crate) counts: RailCounts,
    pub(crate) meter: RateMeter,
    pub(crate) latency: PathLatency,
    next_lane: usize,
    /// The rebuild with this number waits for the lanes to be quiet.
    pub(crate) wants_rebuild: Option<u32>,
    /// When its last group completed: for rivals.
    pub(crate) last_completion: u64,
    /// Bytes per nanosecond, smoothed: for rivals.
    pub(crate) smoothed: f64,
}

#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) queue_pairs: u32,
    outstanding: u32,
    waiting: VecDeque<Work>,
    /// What was under way when the lane failed.
    pub(crate) stranded: Vec<Work>,
    pub(crate) quiesce: Quiesce,
    pub(crate) answer: QuiesceAnswer,
}

impl Connection {
    pub(crate) fn new(index: u32, limits: RailLimits) -> Self {
        Self {
            index,
            rails: Vec::new(),
            machines: RailTable::new(limits),
            homes: Homes::default(),
            made: RailSet::default(),
            homeless: Vec::new(),
            look_at: None,
            under_way: 0,
        }
    }

    /// Adds a rail between two NICs with ports of this speed, without lanes.
    pub(crate) fn add_rail(&mut self, here: u32, there: u32, speed: u64) {
        self.rails.push(Rail {
            here,
            there,
            lanes: Vec::new(),
            is_used: false,
            counts: RailCounts::default(),
            meter: RateMeter::new(speed),
            latency: PathLatency::default(),
            next_lane: 0,
            wants_rebuild: None,
            last_completion: 0,
            smoothed: speed as f64 / 1e9,
        });
    }

    /// The lanes of a rail are connected, and it may be used. Its path is asked once.
    pub(crate) fn make_rail(&mut self, rail: usize, lanes: usize, network: &mut Network, now: u64) {
        self.made = self.made.with(rail);
        self.machines.add(rail, now);
        let rail = &mut self.rails[rail];
        rail.lanes = (0..lanes).map(|_| Lane::new(network.connect())).collect();
        if let Some(answer) = network.probe(rail.here, rail.there, now) {
            rail.latency.answered(answer);
        }
    }

    /// Those that are made, and those that are being made.
    pub(crate) fn made_rails(&self) -> MadeRails {
        let has = |rail: &usize| self.machines.get(*rail).is_some();
        let made = (0..MAX_RAILS).filter(has).fold(RailSet::default(), RailSet::with);
        MadeRails { made, making: RailSet(self.made.0 & !made.0) }
    }

    /// What all rails count.
    pub(crate) fn counts(&self) -> [RailCounts; MAX_RAILS] {
        let mut counts = [RailCounts::default(); MAX_RAILS];
        for (counts, rail) in counts.iter_mut().zip(&self.rails) {
            *counts = rail.counts;
        }
        counts
    }

    /// The loads of all rails; `nic` has what all connections have under way on a NIC of this host.
    pub(crate) fn loads(&self, nic: impl Fn(u32) -> Flow) -> [RailLoad; MAX_RAILS] {
        let mut loads = [RailLoad::default(); MAX_RAILS];
        for (number, (load, rail)) in loads.iter_mut().zip(&self.rails).enumerate() {
            let own = Flow { bytes: rail.counts.bytes_in_flight, rate: rail.meter.rate() };
            *load = RailLoad::up(nic(rail.here), own, rail.latency.nanos(), rail.credits());
            load.up = self.machines.get(number).is_some_and(|machine| machine.is_up());
        }
        loads
    }
}

impl Rail {
    /// Posts work on one of the lanes, or lets it wait there. True if nothing was under way on the rail.
    pub(crate) fn start(
        &mut self,
        work: Work,
        place: (u32, u8),
        network: &mut Network,
        agenda: &mut Agenda,
    ) -> bool {
        let was_idle = self.counts.bytes_in_flight == 0;
        self.counts.bytes_in_flight += work.bytes;
        let lane = self.next_lane % self.lanes.len();
        self.next_lane += 1;
        self.lanes[lane].waiting.push_back(work);
        self.post(lane, place, network, agenda);
        was_idle
    }

    /// A group has completed.
    pub(crate) fn ended(
        &mut self,
        group: &Group,
        place: (u32, u8),
        network: &mut Network,
        agenda: &mut Agenda,
    ) {
        self.counts.completions += u64::from(group.count);
        self.counts.bytes_done += group.bytes;
        self.counts.in_flight -= u64::from(group.count);
        self.counts.bytes_in_flight -= group.bytes;
        self.lanes[usize::from(group.lane)].outstanding -= group.count;
        self.post(usize::from(group.lane), place, network, agenda);
    }

    fn post(
        &mut self,
        index: usize,
        (connection, rail): (u32, u8),
        network: &mut Network,
        agenda: &mut Agenda,
    ) {
        let lane = &mut self.lanes[index];
        while let Some(work) = lane.waiting.front()
            && lane.outstanding + work.count <= DEPTH
        {
            let Some(work) = lane.waiting.pop_front() else { return };
            lane.outstanding += work.count;
            self.counts.in_flight += u64::from(work.count);
            let ends = (self.here, self.there);
            network.post(Group::new(connection, rail, index as u8, lane.queue_pairs, ends, work), agenda);
        }
    }

    /// The lane's queue pair here goes to ERROR: what was posted is stranded, what was not is given back.
    pub(crate) fn set_error(&mut self, index: usize, network: &mut Network) -> VecDeque<Work> {
        let lane = &mut self.lanes[index];
        let stranded = network.strand(lane.queue_pairs);
        lane.outstanding = 0;
        lane.stranded.extend(stranded.iter().map(Group::work));
        let waiting = std::mem::take(&mut lane.waiting);
        for work in &stranded {
            self.counts.in_flight -= u64::from(work.count);
            self.counts.bytes_in_flight -= work.bytes;
        }
        self.counts.bytes_in_flight -= waiting.iter().map(|work| work.bytes).sum::<u64>();
        waiting
    }

    /// The lanes that it had before it carries something now, if that is the first time.
    pub(crate) fn note_use(&mut self) -> Option<usize> {
        (!std::mem::replace(&mut self.is_used, true)).then_some(self.lanes.len())
    }

    /// Its other lanes are connected.
    pub(crate) fn add_lanes(&mut self, network: &mut Network) {
        self.lanes.resize_with(ADDED_LANES, || Lane::new(network.connect()));
    }

    /// Whether it has lanes.
    pub(crate) fn is_made(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// Requests that its lanes may still post.
    fn credits(&self) -> u32 {
        self.lanes.iter().map(|lane| DEPTH - lane.outstanding).sum()
    }
}

impl Lane {
    fn new(queue_pairs: u32) -> Self {
        Self {
            queue_pairs,
            outstanding: 0,
            waiting: VecDeque::new(),
            stranded: Vec::new(),
            quiesce: Quiesce::default(),
            answer: QuiesceAnswer::default(),
        }
    }
}
