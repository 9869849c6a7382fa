//! Notifications that are sent when their transfer is done: by one thread of the engine, for all of them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use flagcx_p2p::{Connection as CoreConnection, TransferId};
use pyo3::prelude::*;

use crate::errors::refused;
use crate::note::Note;

/// How long a peer may be unready: as for notifications that are sent at once. The end of an engine waits for as long.
const LIMIT: Duration = Duration::from_secs(5);

/// How long the thread sleeps before it looks again whether a peer is ready.
const PAUSE: Duration = Duration::from_millis(2);

/// What became of the notification of a transfer.
#[derive(Debug, Default)]
pub(crate) struct Fate(AtomicU8);

impl Fate {
    const SENT: u8 = 1;
    const NOT_SENT: u8 = 2;

    /// `None` until it is known. Read by any thread, written once: it orders nothing, Relaxed.
    pub(crate) fn known(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            Self::SENT => Some(true),
            Self::NOT_SENT => Some(false),
            _ => None,
        }
    }

    fn settle(&self, sent: bool) {
        self.0.store(if sent { Self::SENT } else { Self::NOT_SENT }, Ordering::Relaxed);
    }
}

/// The notifications of an engine that wait for their transfers, and those that are to be sent.
#[derive(Debug, Default)]
pub(crate) struct Notifier(Arc<Outbox>);

#[derive(Debug, Default)]
struct Outbox {
    /// Locked for moments, and never while one is sent.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    /// All that have not been sent or given up.
    outstanding: HashMap<u64, Job>,
    /// Those of transfers that have ended, in the order of their ends, with whether the transfer is done.
    ended: VecDeque<(u64, bool)>,
    is_running: bool,
    stopped: bool,
}

#[derive(Clone, Debug)]
struct Job {
    connection: Arc<CoreConnection>,
    id: TransferId,
    note: Arc<Note>,
    fate: Arc<Fate>,
}

/// One of a transfer that has ended.
struct Due {
    key: u64,
    job: Job,
    done: bool,
    /// When it is given up.
    deadline: Instant,
}

/// Refuses a notification that the peer would not take.
pub(crate) fn check(connection: &CoreConnection, note: &Note) -> PyResult<()> {
    connection.check_notification(&note.name, &note.content).map_err(refused)
}

impl Notifier {
    /// Sends it once the transfer is done, and never if it ends otherwise. `id` was started just now: no thread has asked about it.
    pub(crate) fn attach(&self, connection: &Arc<CoreConnection>, id: TransferId, note: Note) -> Arc<Fate> {
        let fate = Arc::new(Fate::default());
        let job =
            Job { connection: Arc::clone(connection), id, note: Arc::new(note), fate: Arc::clone(&fate) };
        let mut state = self.0.lock();
        state.last += 1;
        let key = state.last;
        state.outstanding.insert(key, job);
        drop(state);
        if id == TransferId::COMPLETE {
            self.0.end(key, true);
        } else {
            let outbox = Arc::clone(&self.0);
            connection.call_at_end(id, move |done| outbox.end(key, done));
        }
        fate
    }

    /// Starts the thread, if it does not run: before the first transfer, which could not be taken back.
    pub(crate) fn start(&self) -> PyResult<()> {
        let mut state = self.0.lock();
        if state.is_running {
            return Ok(());
        }
        let outbox = Arc::clone(&self.0);
        let thread = thread::Builder::new().name("p2p-notify".to_owned());
        thread.spawn(move || outbox.run()).map_err(|error| {
            refused(format!("cannot start the thread that sends notifications after transfers: {error}"))
        })?;
        state.is_running = true;
        Ok(())
    }

    /// Waits until those of transfers that have ended are sent; the engine is closed next.
    pub(crate) fn finish(&self) {
        let mut state = self.0.lock();
        let due = state.outstanding.iter().filter(|(_, job)| !job.connection.is_under_way(job.id));
        let due: Vec<u64> = due.map(|(key, _)| *key).collect();
        let deadline = Instant::now() + LIMIT;
        while due.iter().any(|key| state.outstanding.contains_key(key)) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the thread: the engine is closed, so what is left is refused at once.
    pub(crate) fn stop(&self) {
        self.0.lock().stopped = true;
        self.0.changed.notify_all();
    }
}

impl Outbox {
    /// Called by workers' threads too: it waits for nothing, and drops no connection.
    fn end(&self, key: u64, done: bool) {
        self.lock().ended.push_back((key, done));
        self.changed.notify_all();
    }

    fn run(&self) {
        let mut due: Vec<Due> = Vec::new();
        while self.extend(&mut due) {
            // One peer's notifications keep their order; those of others do not wait for them.
            let mut busy: Vec<*const CoreConnection> = Vec::new();
            due.retain(|one| {
                let connection = Arc::as_ptr(&one.job.connection);
                let stays = busy.contains(&connection) || !self.attempt(one);
                if stays {
                    busy.push(connection);
                }
                stays
            });
        }
    }

    /// Adds those of the transfers that have ended since; waits for one if there is nothing to do. False at the end.
    fn extend(&self, due: &mut Vec<Due>) -> bool {
        let mut state = self.lock();
        if state.ended.is_empty() && !due.is_empty() {
            state = self.changed.wait_timeout(state, PAUSE).unwrap_or_else(PoisonError::into_inner).0;
        }
        while state.ended.is_empty() && due.is_empty() {
            if state.stopped && state.outstanding.is_empty() {
                return false;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let ended = std::mem::take(&mut state.ended);
        let deadline = Instant::now() + LIMIT;
        due.extend(ended.into_iter().filter_map(|(key, done)| {
            let job = state.outstanding.get(&key)?.clone();
            Some(Due { key, job, done, deadline })
        }));
        true
    }

    /// Sends it, or gives it up; false if its peer is not ready.
    fn attempt(&self, Due { key, job, done, deadline }: &Due) -> bool {
        let is_late = Instant::now() >= *deadline;
        if *done && !is_late && !job.connection.can_notify() {
            return false;
        }
        let patience = if is_late { Duration::ZERO } else { LIMIT };
        let Note { name, content } = &*job.note;
        job.fate.settle(*done && job.connection.send_notification_of(job.id, name, content, patience));
        let kept = self.lock().outstanding.remove(key);
        self.changed.notify_all();
        // It may be the last reference to the connection, and its end takes time.
        drop(kept);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
