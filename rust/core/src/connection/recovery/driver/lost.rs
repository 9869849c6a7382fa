//! Rails that may take the place of one that fails for good, and lanes that are left for good, as part of the task of a connection.

use std::sync::{Arc, Weak};
use std::time::Instant;

use super::{Connection, Driver, Observation};
use crate::connection::DeviceHealth;
use crate::connection::lane_commands::bit;
use crate::connection::rail::LANES_PER_RAIL;
use crate::events::with_upgraded;
use crate::pool::LaneHealth;

impl Driver {
    /// Before the machine is told what was seen: whether another rail can be made.
    pub(super) fn note_spare(&mut self, seen: &[Observation]) {
        let is_well = |seen: &Observation| {
            matches!(seen, Observation::Device { health: DeviceHealth::Up | DeviceHealth::PortDown(_), .. })
        };
        if seen.iter().all(is_well) {
            return;
        }
        let lost = |seen: &Observation| match *seen {
            Observation::Device { rail, health: DeviceHealth::Lost(_) } => bit(rail),
            _ => 0,
        };
        let lost = seen.iter().map(lost).fold(0, |set, rail| set | rail);
        let is_new = std::mem::replace(&mut self.rails.lost, lost) != lost;
        let (handle, machine) = (self.handle.clone(), &mut self.machine);
        with_upgraded(&handle, &self.connection, |connection| {
            if is_new {
                // What was refused while it was not needed is tried again now.
                connection.forget_refusals();
            }
            machine.set_spare(connection.could_make_rail());
        });
    }

    /// Tells the machine of lanes that are left for good on which nothing is left.
    pub(super) async fn note_empty_lanes(&mut self) {
        let parting: Vec<_> = self.machine.parting_lanes().collect();
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

    /// Has the queue pair of a lane destroyed that does not drain, and does not wait for it: its device may answer after seconds, if at all.
    pub(super) fn destroy_undrained(&self, lane: usize) {
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
