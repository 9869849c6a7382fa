//! The bounded queue of an engine, and the process-wide view over all of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::{Message, Notification};
use crate::events::Wakeup;
use crate::fork::PerProcess;
use crate::observe::{self, Snapshot, Source, metrics, report};

/// Limit of waiting messages without an engine: local ones, and those of 512 bytes of closed engines.
const PROCESS_LIMIT: usize = 65_536;

/// Orders arrivals over all queues. Drawn under the lock of the queue that a message enters, read only with it;
/// relaxed is enough, because nothing else is published through it.
static ARRIVALS: AtomicU64 = AtomicU64::new(0);

/// Queues of the engines that are open.
static QUEUES: PerProcess<Mutex<Vec<Arc<Queue>>>> = PerProcess::new(Mutex::default);

/// Messages that belong to no open engine.
static PROCESS: PerProcess<Queue> =
    PerProcess::new(|| Queue::new(0, Limits { messages: PROCESS_LIMIT, exact_bytes: usize::MAX }, None));

impl Source for Queue {
    fn collect(&self, out: &mut Snapshot) {
        let state = lock(&self.state);
        out.number(&metrics::NOTIFICATIONS_WAITING, &[], state.waiting.len() as u64);
    }
}

/// Bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) messages: usize,
    /// Bytes that the contents of messages of any size may have together.
    pub(super) exact_bytes: usize,
}

/// The queue of one engine.
#[derive(Debug)]
pub(super) struct Queue {
    incarnation: u64,
    limits: Limits,
    state: Mutex<State>,
    /// Signalled when there is room again.
    room: Condvar,
    /// Wakes the receiver when there is room again.
    receiver: Option<Arc<Wakeup>>,
    /// Called after each arrival, once there is one.
    listener: OnceLock<ArrivalListener>,
}

/// What is called when a notification has arrived.
pub(super) struct ArrivalListener(pub(super) Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for ArrivalListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ArrivalListener")
    }
}

#[derive(Debug, Default)]
struct State {
    /// In the order of arrival, with their process-wide sequence numbers.
    waiting: VecDeque<(u64, Notification)>,
    /// How many of them have 512 bytes.
    fixed: usize,
    /// Bytes of the others' contents.
    bytes: usize,
    reader: Reader,
    /// The receiver holds a message back.
    starved: bool,
    closed: bool,
}

/// Which kinds of messages the program fetches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reader {
    /// Nothing has been fetched yet.
    #[default]
    Unknown,
    /// Messages of 512 bytes.
    FixedOnly,
    /// All, at least once.
    All,
}

impl Queue {
    fn new(incarnation: u64, limits: Limits, receiver: Option<Arc<Wakeup>>) -> Self {
        Self {
            incarnation,
            limits,
            state: Mutex::default(),
            room: Condvar::new(),
            receiver,
            listener: OnceLock::new(),
        }
    }

    /// A queue of an engine, part of the process-wide view from now on.
    pub(super) fn open(incarnation: u64, limits: Limits, receiver: Arc<Wakeup>) -> Arc<Self> {
        let queue = Arc::new(Self::new(incarnation, limits, Some(receiver)));
        lock(QUEUES.get()).push(queue.clone());
        observe::registry().add(&queue);
        queue
    }

    /// Removes the queue from the process-wide view. Messages of 512 bytes that have not been fetched are kept for
    /// [`take_all`]; the others, which only this engine's own calls could fetch, are freed.
    pub(super) fn close(self: &Arc<Self>) {
        let mut queues = lock(QUEUES.get());
        queues.retain(|queue| !Arc::ptr_eq(queue, self));
        let mut state = lock(&self.state);
        state.closed = true;
        let left = std::mem::take(&mut state.waiting);
        (state.fixed, state.bytes) = (0, 0);
        drop(state);
        self.room.notify_all();
        PROCESS.get().adopt(left);
    }

    /// The queue of the engine with this incarnation, if it is open in this process.
    pub(super) fn of(incarnation: u64) -> Option<Arc<Self>> {
        lock(QUEUES.get()).iter().find(|queue| queue.incarnation == incarnation).cloned()
    }

    /// Adds a message, or returns it when there is no room: then the receiver is woken once there is.
    pub(super) fn try_push(&self, arrival: Notification) -> Result<(), Notification> {
        let mut state = lock(&self.state);
        if !self.has_room(&mut state, &arrival) {
            state.starved = true;
            return Err(arrival);
        }
        state.push(arrival);
        drop(state);
        self.tell_listener();
        Ok(())
    }

    /// Adds a message, waiting for room until `deadline`; false if there was none, or the queue is closed.
    pub(super) fn push_by(&self, arrival: Notification, deadline: Instant) -> bool {
        let mut state = lock(&self.state);
        while !state.closed && !self.has_room(&mut state, &arrival) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = match self.room.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        if state.closed {
            return false;
        }
        state.push(arrival);
        drop(state);
        self.tell_listener();
        true
    }

    /// Has the first listener called after each arrival from now on; false if there was one.
    pub(super) fn listen(&self, listener: ArrivalListener) -> bool {
        self.listener.set(listener).is_ok()
    }

    /// Without the queue's lock: the listener may take what has arrived.
    fn tell_listener(&self) {
        if let Some(ArrivalListener(call)) = self.listener.get() {
            call();
        }
    }

    /// Takes the messages of 512 bytes; the others stay queued.
    pub(super) fn take_fixed(&self) -> Vec<(u64, Message)> {
        let mut state = lock(&self.state);
        if state.reader == Reader::Unknown {
            state.reader = Reader::FixedOnly;
        }
        let taken = state.take_fixed();
        self.make_room(state);
        taken
    }

    /// Takes all messages.
    pub(super) fn take(&self) -> Vec<Notification> {
        let mut state = lock(&self.state);
        state.reader = Reader::All;
        let taken = std::mem::take(&mut state.waiting);
        (state.fixed, state.bytes) = (0, 0);
        self.make_room(state);
        taken.into_iter().map(|(_, notification)| notification).collect()
    }

    /// Takes the oldest message, if there is one.
    pub(super) fn take_first(&self) -> Option<Notification> {
        let mut state = lock(&self.state);
        state.reader = Reader::All;
        let (_, first) = state.waiting.pop_front()?;
        match &first {
            Notification::Fixed(_) => state.fixed = state.fixed.saturating_sub(1),
            Notification::Exact(message) => state.bytes = state.bytes.saturating_sub(message.content.len()),
        }
        self.make_room(state);
        Some(first)
    }

    /// Whether there is room for another message of each kind, or none will ever be taken.
    pub(super) fn is_ready(&self) -> bool {
        let state = lock(&self.state);
        state.closed || state.fixed < self.limits.messages && self.has_room_for_exact(&state)
    }

    /// Each kind has its own room, so that a process that fetches one kind only is not cut off from it by the other.
    ///
    /// Where only messages of 512 bytes have ever been fetched, the oldest of the others is dropped when their room
    /// is full: held back, they would block the messages that follow them on their socket for a program that never
    /// fetches them.
    fn has_room(&self, state: &mut State, arrival: &Notification) -> bool {
        match arrival {
            Notification::Fixed(_) => state.fixed < self.limits.messages,
            Notification::Exact(_) if self.has_room_for_exact(state) => true,
            Notification::Exact(_) if state.reader == Reader::FixedOnly => {
                while !self.has_room_for_exact(state) && state.drop_oldest_exact() {}
                report!(
                    warn,
                    NotificationDropped,
                    "a notification of flagcxP2pEngineSendNotifBytes is dropped: more of them wait than may, and this \
                     program has only called flagcxP2pEngineGetNotifs, which does not take them"
                );
                true
            }
            Notification::Exact(_) => false,
        }
    }

    /// Checked before the message is added, so that one always fits into an empty queue.
    fn has_room_for_exact(&self, state: &State) -> bool {
        state.waiting.len() - state.fixed < self.limits.messages && state.bytes < self.limits.exact_bytes
    }

    fn make_room(&self, mut state: MutexGuard<'_, State>) {
        let starved = std::mem::take(&mut state.starved);
        drop(state);
        self.room.notify_all();
        if let (true, Some(receiver)) = (starved, &self.receiver) {
            receiver.wake();
        }
    }

    /// Takes over the messages of 512 bytes of a queue that is closed.
    fn adopt(&self, left: VecDeque<(u64, Notification)>) {
        let mut state = lock(&self.state);
        for (number, notification) in left {
            if matches!(notification, Notification::Fixed(_)) {
                state.waiting.push_back((number, notification));
            }
        }
        let lost = state.waiting.len().saturating_sub(self.limits.messages);
        state.waiting.drain(..lost);
        state.fixed = state.waiting.len();
        if lost > 0 {
            report!(
                warn,
                NotificationDropped,
                "{lost} notifications of closed engines were never fetched and are dropped"
            );
        }
    }
}

impl State {
    fn push(&mut self, arrival: Notification) {
        observe::process_counts().notification_received();
        let number = ARRIVALS.fetch_add(1, Ordering::Relaxed);
        match &arrival {
            Notification::Fixed(_) => self.fixed += 1,
            Notification::Exact(message) => self.bytes = self.bytes.saturating_add(message.content.len()),
        }
        self.waiting.push_back((number, arrival));
    }

    fn take_fixed(&mut self) -> Vec<(u64, Message)> {
        let mut taken = Vec::with_capacity(self.fixed);
        if self.fixed > 0 {
            let waiting = std::mem::take(&mut self.waiting);
            for (number, notification) in waiting {
                match notification {
                    Notification::Fixed(message) => taken.push((number, *message)),
                    exact @ Notification::Exact(_) => self.waiting.push_back((number, exact)),
                }
            }
        }
        self.fixed = 0;
        taken
    }

    /// False if there is none.
    fn drop_oldest_exact(&mut self) -> bool {
        let oldest = self.waiting.iter().position(|(_, message)| matches!(message, Notification::Exact(_)));
        let Some((_, Notification::Exact(message))) = oldest.and_then(|oldest| self.waiting.remove(oldest))
        else {
            return false;
        };
        self.bytes = self.bytes.saturating_sub(message.content.len());
        true
    }
}

/// Takes the messages of 512 bytes of every engine of the process, in the order in which they arrived. Those of any size
/// are taken from their engine.
pub fn take_all() -> Vec<Message> {
    // Under one lock, so that the messages of two concurrent callers do not interleave.
    let queues = lock(QUEUES.get());
    let mut taken: Vec<_> =
        queues.iter().flat_map(|queue| queue.take_fixed()).chain(PROCESS.get().take_fixed()).collect();
    drop(queues);
    taken.sort_by_key(|(number, _)| *number);
    taken.into_iter().map(|(_, message)| message).collect()
}

/// Adds a message from within the process, for the next [`take_all`]. False when the limit is reached: then the
/// message is dropped.
pub fn append(message: &Message) -> bool {
    let added = PROCESS.get().try_push(Notification::Fixed(Box::new(*message))).is_ok();
    if !added {
        report!(
            warn,
            NotificationDropped,
            "a notification is dropped: {PROCESS_LIMIT} wait already; fetch them with flagcxP2pEngineGetNotifs"
        );
    }
    added
}

/// The data behind these locks is consistent after every statement, so a poisoned lock is usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
