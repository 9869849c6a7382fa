//! Notices of the end of a transfer that is under way.

use std::sync::Arc;

use super::Connection;
use crate::pool::Worker;
use crate::transfer::{AtEnd, EndNotice, TransferId};

impl Connection {
    /// Has `at_end` told of the end of a transfer, once; at once if it has ended. Takes the place of what was to be told of
    /// the same transfer, unless that [stays](AtEnd::stays).
    pub(super) fn tell_at_end(&self, id: TransferId, at_end: Arc<dyn AtEnd>) {
        let Some(live) = self.context.transfers.find(id) else { return at_end.ended() };
        let (task, generation) = (live.task(), live.task().generation());
        if !live.is_current() {
            return at_end.ended();
        }
        let pool = &self.context.pool;
        let attending = live.workers().filter_map(|index| pool.worker(index));
        let attending = attending.map(|worker| worker.attend_until_end(task)).collect();
        task.tell_at_end(Box::new(EndNotice::new(generation, at_end, attending)));
    }

    /// The worker that has its thread call what a notice must not.
    pub(super) fn notice_worker(&self) -> Option<&Arc<Worker>> {
        self.lanes.first().map(|lane| &lane.worker)
    }

    /// Ends the use of an id once its transfer has ended: nothing will ask about it any more.
    #[doc(hidden)]
    pub fn release_at_end(self: &Arc<Self>, id: TransferId) {
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
        worker.run_soon(move || {
            if let Some(release) = Arc::into_inner(self) {
                release_id(release.connection, release.id);
            }
        });
    }
}

/// Releases the id of an ended transfer, on a worker's thread.
pub(super) fn release_id(connection: Arc<Connection>, id: TransferId) {
    let _ = connection.status(id);
    // The last reference closes the connection, which may wait for seconds: the worker's other connections would wait too.
    if let Some(last) = Arc::into_inner(connection)
        && let Some((_, events)) = last.recovery.get()
    {
        let events = Arc::clone(events);
        events.detach(move || drop(last));
    }
}
