//! What the engine would do: reports to the shipped machines, and carries out their actions.

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::rails::{
    AnswerAction, PauseReason, PlanLimits, QuiesceAction, QuiesceState, RailAction, Shape, plan,
};

use crate::agenda::Event;
use crate::connection::UNUSED_LANES;
use crate::network::Work;
use crate::policy::Policy;
use crate::scenario::MS;
use crate::simulation::Simulation;

/// How long a peer may take to answer `Quiesce`.
const QUIESCE_LIMIT: u64 = 3_000 * MS;

impl Simulation<'_> {
    /// A look is due, unless an earlier one has set another time.
    pub(crate) fn look_due(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        if connection.look_at.is_some_and(|at| at <= self.agenda.now) {
            connection.look_at = None;
            self.look(index);
        }
    }

    /// Looks at the counters of a connection's rails.
    pub(crate) fn look(&mut self, index: u32) {
        if !self.policy.watches() {
            return;
        }
        let now = self.agenda.now;
        let connection = &mut self.connections[index as usize];
        for rail in connection.rails.iter_mut().filter(|rail| rail.is_made()) {
            rail.meter.look(now, rail.counts);
            let flow = &mut self.flows[rail.here as usize];
            if now >= flow.looked_at + MS / 4 {
                flow.looked_at = now;
                flow.meter.look(now, flow.counts);
            }
        }
        let counts = connection.counts();
        connection.machines.look(now, &counts);
        self.carry_out(index);
    }

    /// Carries out what the machines of a connection have requested, and sets the time of the next look.
    fn carry_out(&mut self, index: u32) {
        while let Some((rail, action)) = self.connections[index as usize].machines.next_action() {
            match action {
                RailAction::Probe(number) => self.probe(index, rail, number),
                RailAction::Move(reason) => self.leave(index, rail, reason),
                RailAction::Rebuild(number) => {
                    self.connections[index as usize].rails[rail].wants_rebuild = Some(number);
                    self.rebuild_if_quiet(index, rail);
                }
            }
        }
        let connection = &mut self.connections[index as usize];
        if let Some(at) = connection.machines.deadline()
            && connection.look_at.is_none_or(|before| before > at)
        {
            connection.look_at = Some(at);
            self.agenda.at(at, Event::Look { connection: index });
        }
    }

    fn probe(&mut self, index: u32, number: usize, probe: u32) {
        self.measure.probes += 1;
        let rail = &self.connections[index as usize].rails[number];
        let now = self.agenda.now;
        let after = match self.policy {
            Policy::OursWithoutProbe => Some(0),
            Policy::OursUnasked => None,
            _ => self.network.probe(rail.here, rail.there, now),
        };
        if let Some(after) = after {
            let sent = (now / 1_000) as u32;
            self.agenda.after(
                after,
                Event::ProbeAnswered { connection: index, rail: number as u8, number: probe, sent },
            );
        }
    }

    pub(crate) fn probe_answered(&mut self, index: u32, number: u8, probe: u32, sent: u32) {
        let connection = &mut self.connections[index as usize];
        let rail = &mut connection.rails[usize::from(number)];
        let is_lost = [rail.here, rail.there].iter().any(|nic| self.network.nics[*nic as usize].is_silent());
        if is_lost && self.policy != Policy::OursWithoutProbe {
            return;
        }
        rail.latency.answered(self.agenda.now.saturating_sub(u64::from(sent) * 1_000));
        if let Some(machine) = connection.machines.get_mut(number.into()) {
            machine.answered(probe, self.agenda.now);
        }
        self.carry_out(index);
    }

    /// Takes all parts from a rail.
    fn leave(&mut self, index: u32, number: usize, reason: PauseReason) {
        self.measure.pauses += 1;
        let now = self.agenda.now;
        let connection = &mut self.connections[index as usize];
        let rail = &mut connection.rails[number];
        if reason == PauseReason::Silent && [rail.here, rail.there].iter().any(|nic| Some(*nic) == self.bad) {
            self.measure.detected.get_or_insert(now);
        }
        let mut unposted = Vec::new();
        for lane in 0..rail.lanes.len() {
            let place = (index, number as u8, lane as u8);
            for action in rail.lanes[lane].quiesce.begin(now, QUIESCE_LIMIT).into_iter().flatten() {
                match action {
                    QuiesceAction::SetError => {
                        unposted.extend(rail.set_error(lane, &mut self.network));
                        let (connection, rail, lane) = place;
                        let after = self.rng.u64(20_000..200_000);
                        self.agenda.after(after, Event::DrainedHere { connection, rail, lane });
                    }
                    QuiesceAction::Send(number) => {
                        let (connection, rail, lane) = place;
                        let after = self.rng.u64(50_000..200_000);
                        self.agenda.after(after, Event::Asked { connection, rail, lane, number });
                    }
                }
            }
        }
        let stranded = rail.lanes.iter().flat_map(|lane| &lane.stranded).map(|work| work.bytes).sum::<u64>();
        let bytes = stranded + unposted.iter().map(|work| work.bytes).sum::<u64>();
        self.flows[rail.here as usize].counts.bytes_in_flight -= bytes;
        connection.under_way -= bytes;
        unposted.into_iter().for_each(|work| self.place(index, work));
    }

    pub(crate) fn drained_here(&mut self, index: u32, rail: u8, lane: u8) {
        self.lane_mut(index, rail, lane).quiesce.drained();
        self.move_parts(index, rail, lane);
    }

    pub(crate) fn asked(&mut self, index: u32, rail: u8, lane: u8, number: u32) {
        let action = self.lane_mut(index, rail, lane).answer.asked(number);
        self.answer(index, rail, lane, action);
    }

    pub(crate) fn drained_there(&mut self, index: u32, rail: u8, lane: u8) {
        let action = self.lane_mut(index, rail, lane).answer.drained();
        self.answer(index, rail, lane, action);
    }

    fn answer(&mut self, connection: u32, rail: u8, lane: u8, action: Option<AnswerAction>) {
        match action {
            Some(AnswerAction::SetError) => {
                let queue_pairs = self.lane_mut(connection, rail, lane).queue_pairs;
                if self.policy != Policy::OursWithoutQuiesce {
                    self.network.set_error(queue_pairs, 1);
                }
                let after = self.rng.u64(20_000..200_000);
                self.agenda.after(after, Event::DrainedThere { connection, rail, lane });
            }
            Some(AnswerAction::Send(number)) => {
                let after = self.rng.u64(50_000..200_000);
                self.agenda.after(after, Event::Quiesced { connection, rail, lane, number });
            }
            None => {}
        }
    }

    pub(crate) fn quiesced(&mut self, index: u32, rail: u8, lane: u8, number: u32) {
        self.lane_mut(index, rail, lane).quiesce.quiesced(number);
        self.move_parts(index, rail, lane);
        self.rebuild_if_quiet(index, rail.into());
    }

    /// Moves the parts of a lane to other rails, if they may.
    fn move_parts(&mut self, index: u32, rail: u8, lane: u8) {
        let (is_defect, opcode) = (self.policy == Policy::OursWithoutQuiesce, self.opcode);
        let lane = self.lane_mut(index, rail, lane);
        if lane.quiesce.may_move(opcode) || is_defect && lane.quiesce.may_move(Opcode::Read) {
            let stranded = std::mem::take(&mut lane.stranded);
            stranded.into_iter().for_each(|work| self.place(index, work));
        }
    }

    /// Posts a part that was to be on another rail: whole, so on one.
    fn place(&mut self, index: u32, work: Work) {
        let connection = &mut self.connections[index as usize];
        let loads = connection.loads(|nic| Self::flow(&self.flows, nic));
        let class = self.transfers[work.transfer as usize].class;
        let eligible = self.eligible(index, class);
        let shape = Shape { bytes: work.bytes, eligible, home: None, spread: work.transfer };
        let limits = PlanLimits { one_rail_below: u64::MAX, ..self.limits };
        match plan(&shape, &loads, &limits).shares().first() {
            Some(share) => self.put(index, share.rail.into(), work),
            None => self.connections[index as usize].homeless.push(work),
        }
    }

    fn rebuild_if_quiet(&mut self, index: u32, number: usize) {
        let rail = &mut self.connections[index as usize].rails[number];
        let is_quiet = rail.lanes.iter().all(|lane| lane.quiesce.state() == QuiesceState::Quiet);
        if is_quiet && let Some(rebuild) = rail.wants_rebuild.take() {
            let after = self.rng.u64(500_000..1_500_000);
            let event = Event::Rebuilt { connection: index, rail: number as u8, number: rebuild };
            self.agenda.after(after, event);
        }
    }

    pub(crate) fn rebuilt(&mut self, index: u32, number: u8, rebuild: u32) {
        let now = self.agenda.now;
        let connection = &mut self.connections[index as usize];
        let rail = &mut connection.rails[usize::from(number)];
        let works = [rail.here, rail.there].iter().all(|nic| !self.network.nics[*nic as usize].is_silent());
        let machine = connection.machines.get_mut(number.into());
        if let Some(machine) = machine {
            machine.rebuilt(rebuild, works, now);
            if machine.is_up() {
                for lane in &mut rail.lanes {
                    lane.quiesce.rebuilt();
                    lane.answer.rebuilt();
                    // New queue pairs at both ends: nothing of the old ones is theirs.
                    self.network.set_error(lane.queue_pairs, 0);
                }
                rail.meter.forget();
            }
        }
        let homeless = std::mem::take(&mut connection.homeless);
        homeless.into_iter().for_each(|work| self.place(index, work));
        self.carry_out(index);
    }

    pub(crate) fn rail_made(&mut self, index: u32, rail: u8) {
        let now = self.agenda.now;
        self.connections[index as usize].make_rail(rail.into(), UNUSED_LANES, &mut self.network, now);
    }

    /// Not while the rail is left: then the engine rebuilds none of its lanes either.
    pub(crate) fn lanes_made(&mut self, index: u32, number: u8) {
        let rail = &mut self.connections[index as usize].rails[usize::from(number)];
        if rail.lanes.iter().all(|lane| lane.quiesce.state() == QuiesceState::InUse) {
            rail.add_lanes(&mut self.network);
        } else {
            self.agenda.after(MS, Event::LanesMade { connection: index, rail: number });
        }
    }

    pub(crate) fn port_changed(&mut self, index: u32, rail: u8, up: bool) {
        let now = self.agenda.now;
        if !self.policy.watches() {
            return;
        }
        if let Some(machine) = self.connections[index as usize].machines.get_mut(rail.into()) {
            if up { machine.port_up(now) } else { machine.port_down() }
        }
        self.carry_out(index);
    }

    fn lane_mut(&mut self, index: u32, rail: u8, lane: u8) -> &mut crate::connection::Lane {
        &mut self.connections[index as usize].rails[usize::from(rail)].lanes[usize::from(lane)]
    }
}
