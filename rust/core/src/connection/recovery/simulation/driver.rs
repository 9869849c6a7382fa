//! The simulated driver: carries out the actions of a machine.

use super::agenda::Event;
use super::fabric::State;
use super::world::World;
use super::{Mutation, Violation, millis};
use crate::connection::recovery::Action;
use crate::control::ChannelFrame;
use crate::control::wire::LaneRecord;
use crate::fabric::QpAddress;
use crate::pool::LaneHealth;

/// A queue pair that is to replace a lane's.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) lane: usize,
    pub(super) attempt: u32,
    /// None while it is being created.
    queue_pair: Option<u32>,
    /// What it is to be connected to.
    peer: Option<u32>,
    /// A helper is at work on it.
    busy: bool,
    discarded: bool,
}

impl World {
    /// Carries out the machine's actions.
    pub(super) fn carry_out(&mut self, end: usize) {
        // For each lane three, and a frame that waited; a Pong, and the end.
        let lanes = self.ends[end].lanes.len();
        // With rails, one more that parts move, and two frames about that.
        let limit = if self.conditions.rails { 7 * lanes + 16 } else { 4 * lanes + 2 };
        for count in 0.. {
            if count > limit {
                return self.violation(Violation::Unbounded, "one event has too many actions");
            }
            let blocked = self.ends[end].blocked_until > self.now;
            let machine = &mut self.ends[end].machine;
            let action = if blocked { machine.next_local_action() } else { machine.next_action() };
            let Some(action) = action else { return };
            self.note(|| format!("end {end}: {action:?}"));
            self.last_action = self.now;
            self.act(end, action);
        }
    }

    fn act(&mut self, end: usize, action: Action) {
        match action {
            Action::Send(frame) => self.send(end, frame),
            Action::Break { lane, .. } => {
                let queue_pair = self.ends[end].lanes[lane].queue_pair;
                self.break_queue_pair(queue_pair);
            }
            Action::Destroy { lane } => self.destroy_undrained(end, lane),
            Action::Create { lane, attempt } => self.begin(end, lane, attempt, None),
            Action::CreateConnected { lane, attempt, peer } => {
                self.begin(end, lane, attempt, Some(peer.address.qpn));
            }
            Action::Connect { lane, attempt, peer } => {
                let Some(pending) = self.pending(end, lane, attempt) else {
                    return self.violation(
                        Violation::NotConnected,
                        "a queue pair that does not exist is to be connected",
                    );
                };
                pending.busy = true;
                pending.peer = Some(peer.address.qpn);
                let delay = self.random.between(50, self.conditions.connect);
                self.after(delay, Event::Connected { end, lane, attempt });
            }
            Action::Install { lane, attempt } => {
                let late = self.mutation == Mutation::InstallsLate;
                let delay = if late { self.random.between(millis(1), millis(5000)) } else { 0 };
                if delay > 0 {
                    return self.after(delay, Event::Install { end, lane, attempt });
                }
                self.take_up(end, lane, attempt);
            }
            Action::Discard { lane, attempt } => self.discard(end, lane, attempt),
            Action::DiscardNow { lane, attempt } => {
                if self.mutation == Mutation::QuiescesUnconfirmed {
                    // It is destroyed too late.
                    return self.after(millis(500), Event::DiscardLate { end, lane, attempt });
                }
                self.discard(end, lane, attempt);
            }
            Action::Close { lane, .. } => self.close_for_good(end, lane),
            Action::Lose(_) => self.end_connection(end),
            Action::MoveParts { lane, both_ends } => self.move_parts(end, lane, both_ends),
            Action::OpenRail { rail, lanes, .. } => {
                self.check_trial(end);
                self.open_rail(end, rail, lanes);
            }
            Action::CreateTrial { rail, number, .. } => self.create_trial(end, rail, number, None),
            Action::AnswerTrial { rail, number, peer, .. } => {
                self.create_trial(end, rail, number, Some(peer.address.qpn));
            }
            Action::WriteTrial { rail, number, peer } => {
                self.write_trial(end, rail, number, peer.address.qpn);
            }
            Action::EndTrial { rail, number } => self.end_trial(end, rail, number),
            Action::RequestRefused { .. } => self.rail_refused(end),
            Action::RailUnconnected { .. } => {}
            Action::PathRefused { .. } | Action::RailRefused { .. } => self.rail_refused(end),
            Action::RailRequested { .. } => self.after(0, Event::AddRail { end }),
        }
    }

    /// Installs the queue pair of an attempt.
    pub(super) fn take_up(&mut self, end: usize, lane: usize, attempt: u32) {
        match self.take_pending(end, lane, attempt) {
            Some(Pending { queue_pair: Some(queue_pair), busy: false, .. }) => {
                self.install(end, lane, queue_pair);
            }
            _ => {
                self.violation(Violation::NotConnected, "a queue pair that does not exist is to be installed")
            }
        }
    }

    fn begin(&mut self, end: usize, lane: usize, attempt: u32, peer: Option<u32>) {
        let pending = Pending { lane, attempt, queue_pair: None, peer, busy: true, discarded: false };
        self.ends[end].pending.push(pending);
        let mut delay = self.random.between(50, self.conditions.create);
        if peer.is_some() {
            delay += self.random.between(50, self.conditions.connect);
        }
        self.after(delay, Event::Created { end, lane, attempt });
    }

    pub(super) fn discard(&mut self, end: usize, lane: usize, attempt: u32) {
        if self.mutation == Mutation::KeepsDiscarded {
            return;
        }
        if let Some(pending) = self.pending(end, lane, attempt).filter(|pending| pending.busy) {
            pending.discarded = true;
        } else if let Some(Pending { queue_pair: Some(queue_pair), .. }) =
            self.take_pending(end, lane, attempt)
        {
            self.destroy(queue_pair);
        }
    }

    /// A helper has created a queue pair, and connected it if it should.
    pub(super) fn created(&mut self, end: usize, lane: usize, attempt: u32) {
        let Some(pending) = self.take_pending(end, lane, attempt) else { return };
        let result = if self.random.percent(self.conditions.create_fails) {
            self.tally.faults += 1;
            Err("the device refuses".to_owned())
        } else if let Some(reason) = pending.peer.and_then(|peer| self.refusal(peer)) {
            self.tally.faults += 1;
            return self
                .report(end, |machine, now| machine.connected(lane, attempt, Err(reason.to_owned()), now));
        } else {
            let queue_pair = self.add_queue_pair(end, lane);
            self.queue_pairs[queue_pair as usize].peer = pending.peer;
            if pending.discarded {
                self.destroy(queue_pair);
            } else {
                let queue_pair = Some(queue_pair);
                self.ends[end].pending.push(Pending { queue_pair, busy: false, ..pending });
            }
            Ok(record(queue_pair))
        };
        self.report(end, |machine, now| machine.created(lane, attempt, result, now));
    }

    /// A helper has connected a queue pair.
    pub(super) fn connected(&mut self, end: usize, lane: usize, attempt: u32) {
        let Some(pending) = self.pending(end, lane, attempt) else { return };
        pending.busy = false;
        let (queue_pair, peer, discarded) = (pending.queue_pair, pending.peer, pending.discarded);
        let result = if let Some(reason) = peer.and_then(|peer| self.refusal(peer)) {
            self.tally.faults += 1;
            Err(reason.to_owned())
        } else {
            if let Some(queue_pair) = queue_pair {
                self.queue_pairs[queue_pair as usize].peer = peer;
            }
            Ok(())
        };
        if discarded {
            self.discard(end, lane, attempt);
        }
        self.report(end, |machine, now| machine.connected(lane, attempt, result, now));
    }

    /// Why a queue pair does not connect to another.
    fn refusal(&mut self, peer: u32) -> Option<&'static str> {
        if self.random.percent(self.conditions.connect_fails) {
            return Some("the device refuses");
        }
        // Some fabrics detect at once that the other end does not exist, some never.
        let gone = self.queue_pairs.get(peer as usize).is_none_or(|other| other.state == State::Gone);
        (gone && self.conditions.dials).then_some("there is no such queue pair")
    }

    /// Closes the socket, which the peer sees behind all earlier frames.
    fn end_connection(&mut self, end: usize) {
        for lane in self.ends[end].lanes.indices() {
            self.close_lane(end, lane);
        }
        for index in 0..self.ends[end].pending.len() {
            if let Some(queue_pair) = self.ends[end].pending[index].queue_pair {
                self.destroy(queue_pair);
            }
        }
        if self.mutation != Mutation::KeepsDiscarded {
            self.ends[end].pending.clear();
        }
        self.end_trials(end);
        self.ends[end].ended = true;
        self.tally.connections_lost += 1;
        self.hang_up(end);
    }

    /// A frame has arrived.
    pub(super) fn receive(&mut self, end: usize, mut frame: ChannelFrame) {
        if let ChannelFrame::Quiesce { lane, number } = frame
            && self.mutation == Mutation::QuiescesUnbroken
        {
            return self.transmit(end, ChannelFrame::Quiesced { lane, number });
        }
        if let ChannelFrame::Broken { lane } = frame
            && self.mutation == Mutation::ForgetsNeed
            && self.is_unneeded(end, lane as usize)
        {
            return;
        }
        if let ChannelFrame::Rebuilt { attempt, .. } = &mut frame
            && self.mutation == Mutation::TakesOldAnswers
        {
            // As if the leader did not compare: it gets the attempt that it waits for.
            let latest = self.ends[end].pending.last();
            *attempt = latest.map_or(*attempt, |pending| pending.attempt);
        }
        let is_refusal = matches!(frame, ChannelFrame::Refused { .. });
        if is_refusal {
            self.look_for_spare(end);
        }
        self.report(end, |machine, now| machine.frame(frame, now));
        if is_refusal {
            self.add_if_lacking(end);
        }
    }

    fn send(&mut self, end: usize, frame: ChannelFrame) {
        if self.mutation == Mutation::HidesRefusals && matches!(frame, ChannelFrame::Refused { .. }) {
            return;
        }
        self.check_told(end, &frame);
        self.transmit(end, frame);
    }

    fn pending(&mut self, end: usize, lane: usize, attempt: u32) -> Option<&mut Pending> {
        self.ends[end].pending.iter_mut().find(|pending| (pending.lane, pending.attempt) == (lane, attempt))
    }

    fn take_pending(&mut self, end: usize, lane: usize, attempt: u32) -> Option<Pending> {
        let all = &mut self.ends[end].pending;
        let index = all.iter().position(|pending| (pending.lane, pending.attempt) == (lane, attempt))?;
        Some(all.remove(index))
    }

    /// Whether both ends agree about a lane, once all events are handled.
    pub(super) fn agree_about(&self, lane: usize) -> bool {
        let [ours, theirs] = [0, 1].map(|end| &self.ends[end].lanes[lane]);
        let pair = |queue_pair: u32| &self.queue_pairs[queue_pair as usize];
        match (ours.health, theirs.health) {
            (LaneHealth::Closed, LaneHealth::Closed) => true,
            (LaneHealth::Closed, health) => self.leaks(0, lane) && self.may_stay(1, lane, health),
            (health, LaneHealth::Closed) => self.leaks(1, lane) && self.may_stay(0, lane, health),
            (LaneHealth::Drained, LaneHealth::Drained) => self.agree_about_need(lane),
            (LaneHealth::Healthy, LaneHealth::Healthy) => {
                pair(ours.queue_pair).peer == Some(theirs.queue_pair)
                    && pair(theirs.queue_pair).peer == Some(ours.queue_pair)
                    && [ours, theirs].iter().all(|lane| pair(lane.queue_pair).state == State::Live)
            }
            _ => false,
        }
    }
}

/// How a queue pair is written on the wire.
pub(super) fn record(queue_pair: u32) -> LaneRecord {
    let address = QpAddress { qpn: queue_pair, gid: [0; 16], port: 1, link_layer: 2, lid: 0, mtu: 5 };
    LaneRecord { address, capabilities: None }
}
