//! The creation and connection of a queue pair that is to replace a lane's.

use std::sync::{Arc, Weak};
use std::time::Instant;

use scopeguard::ScopeGuard;

use super::super::STEP_LIMIT;
use super::super::rebuilds::{AttemptId, Rebuilds};
use crate::connection::Connection;
use crate::control::wire::LaneRecord;
use crate::events::{EventLoopHandle, Waiter, with_upgraded};
use crate::fabric::QueuePair;

/// Creates and connects the queue pair of one attempt, as a task of its own.
pub(super) struct Command {
    pub(super) connection: Weak<Connection>,
    pub(super) id: AttemptId,
    pub(super) rebuilds: Arc<Rebuilds>,
    pub(super) handle: EventLoopHandle,
}

impl Command {
    pub(super) async fn create(&self) -> Result<(Box<dyn QueuePair>, LaneRecord), String> {
        let (connection, lane) = (Weak::clone(&self.connection), self.id.lane);
        let create = move || -> Result<_, String> {
            let connection = connection.upgrade().ok_or_else(gone)?;
            connection.fresh_queue_pair(lane).map_err(|error| error.to_string())
        };
        self.handle.blocking(create).await
    }

    /// Connects a queue pair and stores it for the lane, also when connecting fails, until it is discarded.
    pub(super) async fn connect(
        &self,
        queue_pair: Box<dyn QueuePair>,
        peer: LaneRecord,
    ) -> Result<(), String> {
        let deadline = Instant::now() + STEP_LIMIT;
        let put = |queue_pair| self.rebuilds.put(self.id, queue_pair);
        // Stored also when this task is stopped meanwhile: the end of the connection destroys it.
        let mut queue_pair = scopeguard::guard(queue_pair, put);
        let lane = self.id.lane;
        let options = with_upgraded(&self.handle, &self.connection, |connection| {
            connection.path_options(lane, deadline)
        });
        let options = options.ok_or_else(gone)?;
        if !queue_pair.connects_by_commands() {
            let waiter = Waiter::on_loop(&self.handle);
            let connected = queue_pair.connect_with(&peer.address, &options, &waiter).await;
            return connected.map_err(|error| error.to_string());
        }
        let (mut queue_pair, id) = (ScopeGuard::into_inner(queue_pair), self.id);
        let rebuilds = Arc::clone(&self.rebuilds);
        let connect = move || {
            let connected = queue_pair.connect(&peer.address, &options);
            rebuilds.put(id, queue_pair);
            connected.map_err(|error| error.to_string())
        };
        self.handle.blocking(connect).await
    }
}

fn gone() -> String {
    "the connection has ended".to_owned()
}
