//! Notices of the end of a transfer that is under way.

use std::sync::Arc;

use super::Connection;
use crate::pool::{EndState, Worker};
use crate::sync::{Mutex, lock};
use crate::transfer::{AtEnd, EndNotice, TransferId};

impl Connection {
    /// Has `at_end` told of the end of a transfer, once; at once if it has ended. Takes the place of what was to be told of
    /// the same transfer, unless that [stays](AtEnd::stays).
    pub(super) fn tell_at_end(&self, id: TransferId, at_end: Arc<dyn AtEnd>) {
        let remembered = |id| self.context.transfers.end_state(id);
        let Some(live) = self.context.transfers.find(id) else { return at_end.ended(remembered(id)) };
        let (record, generation) = (live.record(), live.record().generation());
        if !live.is_current() {
            return at_end.ended(remembered(id));
        }
        let driving = live.workers().filter_map(|index| self.context.worker(index));
        let driving = driving.map(|worker| worker.thread_drives_until_end(record)).collect();
        record.tell_at_end(Box::new(EndNotice::new(id, generation, at_end, driving)), remembered);
    }

    /// The worker that has its thread call what a notice must not.
    pub(super) fn notice_worker(&self) -> Option<&Arc<Worker>> {
        self.lanes.first().map(|lane| &lane.worker)
    }

    /// Ends the use of an id once its transfer has ended: nothing will ask about it any more. Nothing in a forked child, where a
    /// worker's lock may be held for ever.
    #[doc(hidden)]
    pub fn release_at_end(self: &Arc<Self>, id: TransferId) {
        if !self.is_here() {
            return;
        }
        let Some(worker) = self.notice_worker() else { return };
        let release = Release { connection: Arc::clone(self), id, worker: Arc::clone(worker) };
        self.tell_at_end(id, Arc::new(release));
    }
}

impl Connection {
    /// Has a worker's thread call `call` once the transfer has ended, also if it has already; several for one transfer are all
    /// called. It is told whether the transfer is done; false too if it was asked about before this call, and the engine does not
    /// remember any more how it ended.
    ///
    /// It must not block, and not drop what may be the last reference to a connection: the thread moves data for others too.
    /// The id is not given back by it. In a forked child it is dropped.
    #[doc(hidden)]
    pub fn call_at_end(&self, id: TransferId, call: impl FnOnce(bool) + Send + 'static) {
        if !self.is_here() {
            return;
        }
        let Some(worker) = self.notice_worker() else { return };
        let (call, worker): (Call, _) = (Box::new(call), Arc::clone(worker));
        self.tell_at_end(id, Arc::new(CallAtEnd { call: Mutex::new(Some(call)), worker }));
    }

    /// Whether a transfer has not ended. Asks nothing of it: no byte moves meanwhile, and its id is not given back.
    #[doc(hidden)]
    pub fn is_under_way(&self, id: TransferId) -> bool {
        self.is_here()
            && self
                .context
                .transfers
                .find(id)
                .is_some_and(|live| !live.record().is_ended() && live.is_current())
    }
}

type Call = Box<dyn FnOnce(bool) + Send>;

/// A call of the program's.
struct CallAtEnd {
    call: Mutex<Option<Call>>,
    worker: Arc<Worker>,
}

impl std::fmt::Debug for CallAtEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallAtEnd").finish_non_exhaustive()
    }
}

impl AtEnd for CallAtEnd {
    fn ended(self: Arc<Self>, state: Option<EndState>) {
        let Some(call) = lock(&self.call).take() else { return };
        self.worker.run_soon(move || call(state == Some(EndState::Done)));
    }

    fn stays(&self) -> bool {
        true
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
    fn ended(self: Arc<Self>, _state: Option<EndState>) {
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
