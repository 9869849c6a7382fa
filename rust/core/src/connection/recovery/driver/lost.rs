//! Rails that may take the place of one that fails for good, and lanes that are left for good, as part of the task of a connection.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::super::DRAIN_LIMIT;
use super::{Connection, Driver, Observation};
use crate::connection::lane_commands::{GiveUp, bit};
use crate::connection::rail::LANES_PER_RAIL;
use crate::connection::{DRAIN_LIMIT as CLOSE_LIMIT, DeviceHealth};
use crate::events::with_upgraded;
use crate::pool::LaneHealth;
use crate::rails::MAX_RAILS;

/// Interval at which a closing lane is checked while it is being drained.
const DRAIN_LOOK: Duration = Duration::from_millis(1);

impl Driver {
    /// Before the machine is told what was seen: whether another rail can be made, if a device is lost, here or at the peer.
    pub(super) fn note_spare(&mut self, seen: &[Observation]) {
        let is_well = |seen: &Observation| {
            matches!(seen, Observation::Device { health: DeviceHealth::Up | DeviceHealth::PortDown(_), .. })
        };
        if seen.iter().all(is_well) && self.machine.parting_lanes().next().is_none() {
            return;
        }
        let lost = |seen: &Observation| match *seen {
            Observation::Device { rail, health: DeviceHealth::Lost(_) } => bit(rail),
            _ => 0,
        };
        let lost = seen.iter().map(lost).fold(0, |set, rail| set | rail);
        let is_new = std::mem::replace(&mut self.rails.lost, lost) != lost;
        self.look_for_spare(is_new);
    }

    /// Asks whether another rail can be made: also before the machine is told that the peer has closed a lane, for the device that is lost may be
    /// the peer's. `is_new`: another device here is lost, so pairs are tried again that were refused while they were not needed.
    pub(super) fn look_for_spare(&mut self, is_new: bool) {
        let (handle, now, machine) = (self.handle.clone(), self.now(), &mut self.machine);
        with_upgraded(&handle, &self.connection, |connection| {
            connection.note_lost_rails();
            if is_new {
                connection.forget_refusals();
            }
            machine.set_spare(connection.could_make_rail(), now);
        });
    }

    /// Tells the machine of lanes that are left for good on which nothing is left.
    pub(super) async fn note_empty_lanes(&mut self) {
        let parting: Vec<_> = self.machine.parting_lanes().collect();
        for rail in (0..MAX_RAILS).filter(|rail| parting.iter().any(|lane| lane / LANES_PER_RAIL == *rail)) {
            let comes =
                with_upgraded(&self.handle, &self.connection, |connection| connection.memory_comes(rail));
            self.machine.set_memory_comes(rail, comes.unwrap_or(false));
        }
        for lane in parting {
            let is_empty = |connection: &Connection| {
                connection.lane(lane).is_some_and(|lane| {
                    lane.status.health() == LaneHealth::Drained && lane.status.counts.is_idle()
                })
            };
            let is_empty = with_upgraded(&self.handle, &self.connection, |connection| is_empty(connection));
            if is_empty == Some(true) {
                self.machine.lane_empty(lane, self.now());
                self.act().await;
            }
        }
    }

    /// The devices go on while the channel is away, and the machine's time stands still: queue pairs that do not drain are destroyed all the same.
    pub(super) async fn note_undrained(&mut self) {
        for (lane, time) in self.undrained_while_away() {
            if time >= DRAIN_LIMIT {
                self.machine.drain_is_late(lane, self.now());
                self.act().await;
            }
        }
    }

    /// When that is to be looked at.
    pub(super) fn undrained_deadline(&self) -> Option<Instant> {
        let waiting = self.undrained_while_away().into_iter();
        waiting.map(|(_, time)| Instant::now() + DRAIN_LIMIT.saturating_sub(time)).min()
    }

    /// The lanes, and for how long they have not been healthy.
    fn undrained_while_away(&self) -> Vec<(usize, Duration)> {
        if !self.is_away() {
            return Vec::new();
        }
        let undrained = self.machine.undrained_lanes();
        let waiting = |connection: &Connection| {
            let time = |lane| Some((lane, connection.lane(lane)?.status.broken_for()));
            undrained.filter_map(time).collect()
        };
        with_upgraded(&self.handle, &self.connection, |connection| waiting(connection)).unwrap_or_default()
    }

    /// Closes a lane for good; true if its device may still be at work on it then. A helper is held for each command, not for the drain that
    /// comes between them, and none for a queue pair that is destroyed undrained.
    pub(super) async fn close_lane(&self, lane: usize, reason: String) -> bool {
        let (deadline, reason) = (Instant::now() + CLOSE_LIMIT, Arc::new(reason));
        loop {
            let (connection, text) = (Weak::clone(&self.connection), Arc::clone(&reason));
            let close = move || {
                connection.upgrade().map(|connection| {
                    (connection.try_give_up(lane, &text, deadline), connection.may_be_at_work(lane))
                })
            };
            match self.handle.blocking(close).await {
                None => return false,
                Some((GiveUp::Closed, may_be_at_work)) => return may_be_at_work,
                Some((GiveUp::Draining, _)) => self.handle.sleep(DRAIN_LOOK).await,
                Some((GiveUp::Undrained, _)) => {
                    self.destroy_closed(lane, reason);
                    return true;
                }
            }
        }
    }

    /// Has the queue pair of a lane destroyed that does not drain, and does not wait for it: its device may answer after seconds, if at all.
    pub(super) async fn destroy_undrained(&mut self, lane: usize) {
        // Its turn may come after seconds too.
        self.command(move |connection| connection.await_destroy(lane)).await;
        self.command_device(lane, move |connection| connection.destroy_undrained(lane));
    }

    /// The same for a lane that is closed for good.
    pub(super) fn destroy_closed(&self, lane: usize, reason: Arc<String>) {
        self.command_device(lane, move |connection| {
            connection.destroy_undrained(lane);
            let _ = connection.try_give_up(lane, &reason, Instant::now());
        });
    }

    /// On a thread for long calls, behind what the device of the lane is to do already.
    fn command_device(&self, lane: usize, call: impl FnOnce(&Connection) + Send + 'static) {
        let connection = Weak::clone(&self.connection);
        let command = move || {
            if let Some(connection) = connection.upgrade() {
                call(&connection);
            }
        };
        let turn = with_upgraded(&self.handle, &self.connection, |connection| {
            connection.nic_of(lane / LANES_PER_RAIL)?.commands.push(command)
        });
        if let Some(turn) = turn.flatten() {
            self.handle.detach_long(move || turn.serve());
        }
    }
}
