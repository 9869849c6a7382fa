//! Starting transfers, and dealing them to rails.

use flagcx_p2p::internals::rails::{RailSet, Shape, plan, wanted_rail};

use crate::agenda::Event;
use crate::connection::{DEPTH, LANES, LONGEST};
use crate::network::Work;
use crate::policy::Dealing;
use crate::scenario::{FULL, Load, MS};
use crate::simulation::{Simulation, Transfer};

/// The slices of rivals.
const SLICE: u64 = 64 << 10;

/// Transfers that a host that sends to one NIC alone has in flight beside the usual ones.
const RUDE: usize = 16;

/// Bytes and requests by rail.
type Dealt = [(u64, u32); 8];

impl Simulation<'_> {
    /// Starts what is in flight at the beginning, spread over 100 us.
    pub(crate) fn begin_load(&mut self) {
        let sources = match self.scenario.load {
            Load::Closed { in_flight, .. } => in_flight * self.connections.len(),
            Load::Turns { in_flight, .. } => in_flight,
            Load::Gpus { gpus, .. } => gpus,
            Load::Once { .. } => 1,
        };
        for source in 0..sources as u32 {
            let at =
                if matches!(self.scenario.load, Load::Once { .. }) { 0 } else { self.rng.u64(..100_000) };
            self.agenda.at(at, Event::Start { source });
        }
        for source in 0..RUDE * self.scenario.rude {
            self.agenda.at(5 * MS, Event::Start { source: (sources + source) as u32 });
        }
    }

    fn usual_sources(&self) -> usize {
        match self.scenario.load {
            Load::Closed { in_flight, .. } => in_flight * self.connections.len(),
            _ => usize::MAX,
        }
    }

    pub(crate) fn start(&mut self, source: u32) {
        let buffer = u64::from(source) << 26;
        match self.scenario.load {
            Load::Closed { bytes, requests, .. } => {
                let count = self.connections.len();
                let is_more = source as usize >= self.usual_sources();
                let rude = count - 1 - source as usize % self.scenario.rude.max(1);
                let connection = if is_more { rude } else { source as usize % count };
                self.submit(connection as u32, source, 0, bytes, requests, buffer);
            }
            Load::Turns { bytes, .. } => {
                if self.turns.is_empty() {
                    self.turns = (0..self.connections.len() as u32).collect();
                    self.rng.shuffle(&mut self.turns);
                }
                let connection = self.turns.pop().unwrap_or(0);
                self.submit(connection, source, 0, bytes, 1, u64::from(connection) << 26);
            }
            Load::Gpus { bytes, .. } => {
                let gpu = source as usize;
                self.submit(0, source, gpu, bytes, 1, buffer + ((self.transfers.len() as u64 % 16) << 23));
                // Arrivals are evenly spread, give or take a tenth.
                let every = bytes as f64 * 1e9 / (FULL as f64 * self.classes[gpu]);
                let every = every * (0.9 + 0.2 * self.rng.f64());
                self.agenda.after(every as u64, Event::Start { source });
            }
            Load::Once { bytes } => self.submit(0, source, 0, bytes, 1, buffer),
        }
    }

    /// A source's transfer has ended: those of a closed loop start the next one.
    pub(crate) fn transfer_ended(&mut self, source: u32) {
        if matches!(self.scenario.load, Load::Closed { .. } | Load::Turns { .. }) {
            self.agenda.after(0, Event::Start { source });
        }
    }

    fn submit(&mut self, index: u32, source: u32, class: usize, bytes: u64, requests: u32, buffer: u64) {
        let eligible = self.eligible(index, class);
        let dealt = match self.policy.dealing() {
            Dealing::Plan => self.planned(index, bytes, requests, buffer, eligible),
            rival => self.dealt(rival, index, bytes, requests, eligible),
        };
        let transfer = self.transfers.len() as u32;
        let since = self.agenda.now;
        self.transfers.push(Transfer { source, class, bytes, left: 0, since });
        for (rail, (bytes, count)) in dealt.into_iter().enumerate().filter(|(_, (bytes, _))| *bytes > 0) {
            let groups = bytes.div_ceil(LONGEST).max(u64::from(count.div_ceil(DEPTH / 2))) as u32;
            self.transfers[transfer as usize].left += groups;
            for group in 0..groups {
                let share = |of: u64| {
                    of * u64::from(group + 1) / u64::from(groups) - of * u64::from(group) / u64::from(groups)
                };
                let count = (share(count.into()) as u32).max(1);
                let work = Work { transfer, opcode: self.opcode, bytes: share(bytes), count };
                self.put(index, rail, work);
            }
        }
        if self.transfers[transfer as usize].left == 0 {
            // No rail is up: it could wait for one, as parts do that are to move.
            self.measure.failed += 1;
            self.agenda.after(1_000_000, Event::Start { source });
        }
    }

    /// By the shipped plan.
    fn planned(&mut self, index: u32, bytes: u64, requests: u32, buffer: u64, eligible: RailSet) -> Dealt {
        let connection = &mut self.connections[index as usize];
        let loads = connection.loads(|nic| Self::flow(&self.flows, nic));
        let shape =
            Shape { bytes, eligible, home: connection.homes.of(buffer), spread: (buffer >> 26) as u32 };
        let rails = connection.made_rails();
        if let Some(rail) = wanted_rail(&shape, connection.under_way, rails, &loads, &self.limits) {
            connection.made = connection.made.with(rail);
            let after = self.rng.u64(500_000..2_000_000);
            self.agenda.after(after, Event::RailMade { connection: index, rail: rail as u8 });
        }
        let plan = plan(&shape, &loads, &self.limits);
        if let [share] = plan.shares() {
            connection.homes.set(buffer, share.rail, 0);
        }
        let mut dealt = Dealt::default();
        for share in plan.shares() {
            let count = share.of(requests.into()).1 as u32;
            dealt[usize::from(share.rail)] = (share.of(bytes).1, count.max(1));
        }
        dealt
    }

    /// As rivals do it.
    fn dealt(&mut self, rival: Dealing, index: u32, bytes: u64, requests: u32, eligible: RailSet) -> Dealt {
        let connection = &self.connections[index as usize];
        let all = self.policy.watches();
        let is_up =
            |rail: usize| !all || connection.machines.get(rail).is_some_and(|machine| machine.is_up());
        let rails: Vec<usize> = (0..connection.rails.len())
            .filter(|rail| eligible.has(*rail) && connection.rails[*rail].is_made() && is_up(*rail))
            .collect();
        let mut dealt = Dealt::default();
        if rails.is_empty() {
            return dealt;
        }
        let slice = SLICE.min(bytes / u64::from(requests));
        let slices = bytes.div_ceil(slice);
        if rival == Dealing::Hash {
            let rail = rails[self.rng.usize(..rails.len())];
            dealt[rail] = (bytes, slices as u32);
            return dealt;
        }
        // When what is in flight on a rail and one more slice would have ended, and how long the slice takes.
        let ends = |rail: &usize| {
            let rail = &connection.rails[*rail];
            ((rail.counts.bytes_in_flight + slice) as f64 / rail.smoothed, slice as f64 / rail.smoothed)
        };
        let mut ends: Vec<(f64, f64)> = rails.iter().map(ends).collect();
        for _ in 0..slices {
            let chosen = if rival == Dealing::RoundRobin {
                self.next_rail += 1;
                self.next_rail % rails.len()
            } else {
                (1..rails.len()).fold(0, |best, at| if ends[at].0 < ends[best].0 { at } else { best })
            };
            ends[chosen].0 += ends[chosen].1;
            let (bytes, count) = &mut dealt[rails[chosen]];
            *bytes += slice;
            *count += 1;
        }
        dealt
    }

    /// Starts work on a rail.
    pub(crate) fn put(&mut self, index: u32, rail: usize, work: Work) {
        let connection = &mut self.connections[index as usize];
        connection.under_way += work.bytes;
        let place = (index, rail as u8);
        let rail = &mut connection.rails[rail];
        if let Some(lanes) = rail.note_use()
            && lanes < LANES
        {
            self.measure.unused_lanes = self.measure.unused_lanes.max(lanes);
            let after = self.rng.u64(500_000..1_500_000);
            self.agenda.after(after, Event::LanesMade { connection: index, rail: place.1 });
        }
        self.flows[rail.here as usize].counts.bytes_in_flight += work.bytes;
        if rail.start(work, place, &mut self.network, &mut self.agenda) {
            self.look(index);
        }
    }
}
