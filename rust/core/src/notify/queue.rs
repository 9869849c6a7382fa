//! The bounded queue of an engine, and the process-wide view over all of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{LargeMessage, Message};
use crate::events::Wakeup;
use crate::fork::PerProcess;
use crate::observe::{self, Snapshot, Source, metrics};

/// Messages of no engine in particular that may wait: local ones, and what closed engines have left behind.
const PROCESS_LIMIT: usize = 65_536;

/// Orders arrivals over all queues. Drawn under the lock of the queue that a message enters, read only with it;
/// relaxed is enough, because nothing else is published through it.
static ARRIVALS: AtomicU64 = AtomicU64::new(0);

/// Queues of the engines that are open.
static QUEUES: PerProcess<Mutex<Vec<Arc<Queue>>>> = PerProcess::new(Mutex::default);

/// What belongs to no open engine.
static PROCESS: PerProcess<Queue> =
    PerProcess::new(|| Queue::new(0, Limits { messages: PROCESS_LIMIT, large_bytes: usize::MAX }, None));

impl Source for Queue {
    fn collect(&self, out: &mut Snapshot) {
        let state = lock(&self.state);
        let labels = [("engine", format!("{:016x}", self.incarnation))];
        out.number(&metrics::NOTIFICATIONS_RECEIVED, &labels, state.received);
        out.number(&metrics::NOTIFICATIONS_WAITING, &labels, (state.small.len() + state.large.len()) as u64);
    }
}

/// Bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) messages: usize,
    /// Bytes that large messages may have together.
    pub(super) large_bytes: usize,
}

/// A message that arrived.
#[derive(Debug)]
pub(super) enum Arrival {
    Small(Box<Message>),
    Large(Box<LargeMessage>),
}

/// The queue of one engine.
#[derive(Debug)]
pub(super) struct Queue {
    incarnation: u64,
    limits: Limits,
    state: Mutex<State>,
    /// Signalled when there is room again.
    room: Condvar,
    /// Tells the receiver that there is room again.
    receiver: Option<Arc<Wakeup>>,
}

#[derive(Debug, Default)]
struct State {
    small: VecDeque<(u64, Message)>,
    large: VecDeque<(u64, LargeMessage)>,
    large_bytes: usize,
    /// Messages that have ever been added.
    received: u64,
    /// The receiver holds a message back.
    starved: bool,
    closed: bool,
}

impl Queue {
    fn new(incarnation: u64, limits: Limits, receiver: Option<Arc<Wakeup>>) -> Self {
        Self { incarnation, limits, state: Mutex::default(), room: Condvar::new(), receiver }
    }

    /// A queue of an engine, part of the process-wide view from now on.
    pub(super) fn open(incarnation: u64, limits: Limits, receiver: Arc<Wakeup>) -> Arc<Self> {
        let queue = Arc::new(Self::new(incarnation, limits, Some(receiver)));
        lock(QUEUES.get()).push(queue.clone());
        observe::registry().add(&queue);
        queue
    }

    /// Leaves the process-wide view; what has not been fetched is kept for [`take_all`].
    pub(super) fn close(self: &Arc<Self>) {
        let mut queues = lock(QUEUES.get());
        queues.retain(|queue| !Arc::ptr_eq(queue, self));
        let mut state = lock(&self.state);
        state.closed = true;
        let (small, large) = (std::mem::take(&mut state.small), std::mem::take(&mut state.large));
        drop(state);
        self.room.notify_all();
        PROCESS.get().adopt(small, large);
    }

    /// The queue of the engine with this incarnation, if it is open in this process.
    pub(super) fn of(incarnation: u64) -> Option<Arc<Self>> {
        lock(QUEUES.get()).iter().find(|queue| queue.incarnation == incarnation).cloned()
    }

    /// Adds a message, or gives it back when there is no room: then the receiver is woken once there is.
    pub(super) fn try_push(&self, arrival: Arrival) -> Result<(), Arrival> {
        let mut state = lock(&self.state);
        if !self.has_room(&state, &arrival) {
            state.starved = true;
            return Err(arrival);
        }
        state.push(arrival);
        Ok(())
    }

    /// Adds a message, waiting for room until `deadline`; false if there was none, or the queue is closed.
    pub(super) fn push_by(&self, arrival: Arrival, deadline: Instant) -> bool {
        let mut state = lock(&self.state);
        while !state.closed && !self.has_room(&state, &arrival) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = match self.room.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        if !state.closed {
            state.push(arrival);
        }
        !state.closed
    }

    /// Takes the messages of 512 bytes.
    pub(super) fn take(&self) -> VecDeque<(u64, Message)> {
        let mut state = lock(&self.state);
        let taken = std::mem::take(&mut state.small);
        self.make_room(state);
        taken
    }

    /// Takes the large messages.
    pub(super) fn take_large(&self) -> VecDeque<(u64, LargeMessage)> {
        let mut state = lock(&self.state);
        let taken = std::mem::take(&mut state.large);
        state.large_bytes = 0;
        self.make_room(state);
        taken
    }

    /// Each kind has its own room, so that a process that fetches one kind only is not cut off from it by the other.
    fn has_room(&self, state: &State, arrival: &Arrival) -> bool {
        match arrival {
            Arrival::Small(_) => state.small.len() < self.limits.messages,
            // Judged before the message is added, so that one always fits into an empty queue.
            Arrival::Large(_) => {
                state.large.len() < self.limits.messages && state.large_bytes < self.limits.large_bytes
            }
        }
    }

    fn make_room(&self, mut state: MutexGuard<'_, State>) {
        let starved = std::mem::take(&mut state.starved);
        drop(state);
        self.room.notify_all();
        if let (true, Some(receiver)) = (starved, &self.receiver) {
            receiver.wake();
        }
    }

    fn adopt(&self, small: VecDeque<(u64, Message)>, large: VecDeque<(u64, LargeMessage)>) {
        let mut state = lock(&self.state);
        state.small.extend(small);
        state.large.extend(large);
        let mut lost = 0;
        while state.small.len() > self.limits.messages {
            state.small.pop_front();
            lost += 1;
        }
        while state.large.len() > self.limits.messages {
            state.large.pop_front();
            lost += 1;
        }
        if lost > 0 {
            tracing::warn!("{lost} notifications of closed engines were never fetched and are dropped");
        }
    }
}

impl State {
    fn push(&mut self, arrival: Arrival) {
        self.received += 1;
        let number = ARRIVALS.fetch_add(1, Ordering::Relaxed);
        match arrival {
            Arrival::Small(message) => self.small.push_back((number, *message)),
            Arrival::Large(message) => {
                self.large_bytes = self.large_bytes.saturating_add(message.content.len());
                self.large.push_back((number, *message));
            }
        }
    }
}

/// Takes the messages of every engine of the process, in the order in which they arrived.
pub fn take_all() -> Vec<Message> {
    in_order(Queue::take)
}

/// The same for large messages.
pub fn take_all_large() -> Vec<LargeMessage> {
    in_order(Queue::take_large)
}

/// Adds a message from within the process, for the next [`take_all`]. False when far too many wait already: the
/// message is dropped then.
pub fn append(message: &Message) -> bool {
    let added = PROCESS.get().try_push(Arrival::Small(Box::new(*message))).is_ok();
    if !added {
        tracing::warn!("{PROCESS_LIMIT} notifications wait to be fetched already; another one is dropped");
    }
    added
}

fn in_order<T>(take: impl Fn(&Queue) -> VecDeque<(u64, T)>) -> Vec<T> {
    let queues = lock(QUEUES.get());
    let mut taken: Vec<_> = queues.iter().flat_map(|queue| take(queue)).chain(take(PROCESS.get())).collect();
    drop(queues);
    taken.sort_by_key(|(number, _)| *number);
    taken.into_iter().map(|(_, message)| message).collect()
}

/// The data behind these locks is whole after every statement, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
