//! The creation and connection of a queue pair that is to replace a lane's.

use std::sync::{Arc, Weak};
use std::time::Instant;

use scopeguard::ScopeGuard;

use super::super::STEP_LIMIT;
use super::super::rebuilds::{AttemptId, Rebuilds};
use super::{CommandResult, Driver};
use crate::connection::Connection;
use crate::control::wire::LaneRecord;
use crate::events::{EventLoopHandle, Waiter, with_upgraded};
use crate::fabric::QueuePair;
use crate::sync::lock;

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
        let put = |queue_pair| self.put(queue_pair);
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
            drop(rebuilds.put(id, queue_pair));
            connected.map_err(|error| error.to_string())
        };
        self.handle.blocking(connect).await
    }

    /// Stores a queue pair; one that comes too late is destroyed by a helper.
    fn put(&self, queue_pair: Box<dyn QueuePair>) {
        if let Some(late) = self.rebuilds.put(self.id, queue_pair) {
            self.handle.detach(move || drop(late));
        }
    }
}

impl Driver {
    /// Creates a queue pair, and connects it if the peer's is known already.
    pub(super) fn create(&mut self, id: AttemptId, peer: Option<LaneRecord>) {
        let (command, report) = (self.new_command(id), self.report());
        self.rebuilds.add_command(self.handle.spawn(async move {
            let (queue_pair, record) = match command.create().await {
                Ok(created) => created,
                Err(error) => return report(CommandResult::Created { id, result: Err(error) }),
            };
            let connected = match peer {
                Some(peer) => command.connect(queue_pair, peer).await,
                None => {
                    command.put(queue_pair);
                    Ok(())
                }
            };
            report(match connected {
                Ok(()) => CommandResult::Created { id, result: Ok(record) },
                Err(error) => CommandResult::Connected { id, result: Err(error) },
            });
        }));
    }

    /// Connects a queue pair that was created before.
    pub(super) fn connect(&mut self, id: AttemptId, peer: LaneRecord) {
        let Some(queue_pair) = self.rebuilds.take(id) else { return };
        let (command, report) = (self.new_command(id), self.report());
        self.rebuilds.add_command(self.handle.spawn(async move {
            let result = command.connect(queue_pair, peer).await;
            report(CommandResult::Connected { id, result });
        }));
    }

    fn new_command(&self, id: AttemptId) -> Command {
        Command {
            connection: Weak::clone(&self.connection),
            id,
            rebuilds: Arc::clone(&self.rebuilds),
            handle: self.handle.clone(),
        }
    }

    pub(super) fn report(&self) -> impl FnOnce(CommandResult) + 'static {
        let (ended, wakeup) = (Arc::clone(&self.ended), Arc::clone(&self.wakeup));
        move |what| {
            lock(&ended).push(what);
            wakeup.wake();
        }
    }
}

fn gone() -> String {
    "the connection has ended".to_owned()
}
