//! Telling of the end of a transfer that is under way.

use std::sync::Arc;

use super::{Connection, device_copies};
use crate::pool::Worker;
use crate::transfer::{AtEnd, EndNotice, Live, TaskGeneration, TransferId};

impl Connection {
    /// Has `at_end` told of the end of a transfer, once; at once if it has ended. Takes the place of what was to be told of
    /// the same transfer.
    pub(super) fn tell_at_end(self: &Arc<Self>, id: TransferId, at_end: Arc<dyn AtEnd>) {
        let Some(live) = self.context.transfers.find(id) else { return at_end.ended() };
        let (task, generation) = (live.task(), live.task().generation());
        if !live.is_current() {
            return at_end.ended();
        }
        let workers = self.context.pool.workers();
        let attending = live.workers().filter_map(|index| workers.get(index));
        let attending = attending.map(|worker| worker.attend_until_end(task)).collect();
        if !live.has_workers() {
            self.poll_until_end(live, generation);
        }
        task.tell_at_end(Box::new(EndNotice::new(generation, at_end, attending)));
    }

    /// Copies by the GPU's runtime only end when they are polled: a thread does, until this one has ended. No worker's lock
    /// orders their ends, so that a notice may be missed: the thread tells of it then.
    fn poll_until_end(self: &Arc<Self>, live: Live, generation: TaskGeneration) {
        let connection = Arc::clone(self);
        let poll = move || {
            while live.is_current() && !live.task().is_ended() {
                connection.context.device_copies.poll(live.id());
                std::thread::sleep(device_copies::LOOK);
            }
            live.task().tell_missed(generation);
        };
        if let Err(error) = std::thread::Builder::new().name("p2p-copy".to_owned()).spawn(poll) {
            // A later poll by a caller ends it.
            tracing::warn!("cannot start a thread that polls a copy of GPU memory: {error}");
        }
    }

    /// The worker that has its thread call what a notice must not.
    pub(super) fn notice_worker(&self) -> Option<&Arc<Worker>> {
        self.lanes.first().map(|lane| &lane.worker)
    }

    /// Ends the use of an id once its transfer has ended.
    pub(super) fn release_at_end(self: &Arc<Self>, id: TransferId) {
        let Some(worker) = self.notice_worker() else { return };
        let release = Release { connection: Arc::clone(self), id, worker: Arc::clone(worker) };
        self.tell_at_end(id, Arc::new(release));
    }
}

/// Releases the id of a transfer that nothing asks about any more.
#[derive(Debug)]
struct Release {
    connection: Arc<Connection>,
    id: TransferId,
    worker: Arc<Worker>,
}

impl AtEnd for Release {
    fn ended(self: Arc<Self>) {
        let worker = Arc::clone(&self.worker);
        worker.run_soon(move || drop(self.connection.status(self.id)));
    }
}
