//! A queue pair as its completion queue sees it: takes over what was posted, carries it out, and says what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use super::device_core::Core;
use super::endpoint::Endpoint;
use super::faults::Faults;
use super::incoming::{Incoming, List};
use super::late::leave_on_the_way;
use super::send_queue::SendQueue;
use super::socket_watch::News;
use super::transport::Transport;
use super::work::{Budget, Next, Work};
use crate::fabric::{Completion, CompletionStatus, QueuePairCaps};
use crate::sync::{Mutex, lock};

/// The initiating half of a queue pair, shared by its handle and its completion queue.
#[derive(Debug)]
pub(super) struct Requester {
    device: Arc<Core>,
    endpoint: Arc<Endpoint>,
    /// Where it stands in its completion queue's list of work: a [`Turn`]. Read and changed under that queue's lock only;
    /// Relaxed.
    turn: AtomicU8,
    /// What is known of its socket: a [`News`]. Raised by the thread that looks at the sockets, taken by the one that advances it;
    /// Relaxed, for the lock of the completion queue lies between the two.
    news: AtomicU8,
    /// Number of requests that have given back their slots in the send queue. Written by the thread that polls, read by the
    /// one that posts; Relaxed, it is a count and nothing is published with it.
    retired: AtomicU64,
    /// What was posted. Held for a moment only.
    incoming: Mutex<Incoming>,
    /// What is being carried out. Held while bytes move: by the one thread that has the queue pair's turn, by `connect_with`
    /// before there is anything to move, and by the handle's drop, which so waits for the copy under way.
    execution: Mutex<Execution>,
}

/// Where a queue pair stands in the list of those with something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Turn {
    /// Nothing to do.
    Idle = 0,
    /// In the list.
    Queued = 1,
    /// A thread advances it.
    Running = 2,
    /// So does one, and there is more to do behind that.
    RunningAndWanted = 3,
    /// Destroyed.
    Gone = 4,
}

#[derive(Debug)]
struct Execution {
    queue: SendQueue,
    /// Room for what is taken over.
    taken: List,
    faults: Faults,
    transport: Option<Transport>,
    /// Once in ERROR: how the first unfinished request ends. The later ones are flushed.
    ending: Option<CompletionStatus>,
    /// Destroyed: nothing is taken over or reported any more.
    closed: bool,
}

/// A completion, and what polling it means for its queue pair.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) completion: Completion,
    pub(super) requester: Arc<Requester>,
    /// Requests of the queue pair, counted from its first one, that have given back their slots when this completion is polled.
    retires: u64,
}

impl Done {
    /// It is polled.
    pub(super) fn polled(self) -> Completion {
        self.requester.retired.store(self.retires, Ordering::Relaxed);
        self.completion
    }
}

/// What a turn came to.
#[derive(Debug, Default)]
pub(super) struct TurnEnd {
    /// Requests of which nothing is left to be done or reported.
    pub(super) finished: u64,
    /// Completions that have come to be owed: those of unsignaled requests that are flushed.
    pub(super) newly_owed: u64,
    /// Whether it wants another turn without being asked.
    pub(super) more: bool,
    /// Whether it waits for nothing but answers of the peer.
    pub(super) awaits: bool,
    /// Otherwise when it wants one, if it knows.
    pub(super) later: Option<Instant>,
}

/// What was left of a queue pair that is destroyed.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Requests that were not finished.
    pub(super) unfinished: u64,
    /// Completions that they would have had.
    pub(super) owed: u64,
}

impl Requester {
    pub(super) fn new(
        device: Arc<Core>,
        endpoint: Arc<Endpoint>,
        caps: QueuePairCaps,
        faults: Faults,
    ) -> Arc<Self> {
        let execution = Execution {
            queue: SendQueue::new(caps),
            taken: List::default(),
            faults,
            transport: None,
            ending: None,
            closed: false,
        };
        Arc::new(Self {
            device,
            endpoint,
            turn: AtomicU8::new(Turn::Idle as u8),
            news: AtomicU8::new(News::None as u8),
            retired: AtomicU64::new(0),
            incoming: Mutex::new(Incoming::new(caps)),
            execution: Mutex::new(execution),
        })
    }

    pub(super) fn qpn(&self) -> u32 {
        self.endpoint.qpn()
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Where what is posted goes.
    pub(super) fn incoming(&self) -> &Mutex<Incoming> {
        &self.incoming
    }

    /// Number of requests that have given back their slots.
    pub(super) fn retired(&self) -> u64 {
        self.retired.load(Ordering::Relaxed)
    }

    /// Its turn; under the lock of its completion queue.
    pub(super) fn turn(&self) -> Turn {
        match self.turn.load(Ordering::Relaxed) {
            0 => Turn::Idle,
            1 => Turn::Queued,
            2 => Turn::Running,
            3 => Turn::RunningAndWanted,
            _ => Turn::Gone,
        }
    }

    /// Changes its turn; under the lock of its completion queue.
    pub(super) fn set_turn(&self, turn: Turn) {
        self.turn.store(turn as u8, Ordering::Relaxed);
    }

    /// Notes that its socket has news.
    pub(super) fn mark_news(&self, news: News) {
        self.news.fetch_max(news as u8, Ordering::Relaxed);
    }

    fn take_news(&self) -> News {
        match self.news.swap(News::None as u8, Ordering::Relaxed) {
            0 => News::None,
            1 => News::Awaited,
            2 => News::Ready,
            _ => News::End,
        }
    }

    /// Whether a change from outside is to be looked at.
    pub(super) fn is_broken(&self) -> bool {
        self.endpoint.is_error() || self.endpoint.is_peer_gone()
    }

    /// From now on it can move bytes.
    pub(super) fn connect(&self, transport: Transport) {
        lock(&self.execution).transport = Some(transport);
    }

    /// Carries out what the budget allows, and appends completions to `out`.
    pub(super) fn advance(self: &Arc<Self>, budget: &mut Budget, out: &mut Vec<Done>) -> TurnEnd {
        let mut execution = lock(&self.execution);
        let mut end = TurnEnd::default();
        if execution.closed {
            return end;
        }
        end.newly_owed = execution.take_over(&self.incoming);
        let mut next = Next::Idle;
        let silence = self.device.silence().filter(|_| !self.endpoint.is_error());
        if let (Some(time), None) = (silence, execution.ending) {
            next = Next::Later(time);
        } else if execution.ending.is_none() {
            let news = self.take_news();
            next = execution.execute(&self.device, &self.endpoint, budget, news);
            // Not in place of a failure's own reason: another thread may have moved it to ERROR because of that.
            if self.endpoint.is_error() && !matches!(next, Next::Failed(_)) {
                next = Next::Failed(CompletionStatus::Flushed);
            }
            if let Next::Failed(status) = next {
                execution.fail(&self.device, &self.endpoint, status);
                end.newly_owed = execution.queue.silent_pending();
            }
        }
        end.finished = execution.report(self, out);
        end.more = next == Next::More;
        end.awaits = next == Next::Awaiting;
        end.later = match next {
            Next::Later(time) => Some(time),
            _ => None,
        };
        end
    }

    /// Its handle is dropped. Waits for the copy under way; after that nothing of it touches memory.
    pub(super) fn close(&self) -> Rest {
        let mut execution = lock(&self.execution);
        execution.closed = true;
        execution.transport = None;
        let mut rest = execution.queue.pending().fold(Rest::default(), Rest::with);
        let incoming = lock(&self.incoming);
        rest = incoming.list().requests().map(|(label, ..)| label.signaled).fold(rest, Rest::with);
        rest
    }
}

impl Rest {
    /// One request more, which was signaled or was not.
    fn with(self, signaled: bool) -> Self {
        Self { unfinished: self.unfinished + 1, owed: self.owed + u64::from(signaled) }
    }
}

impl Execution {
    /// Takes what was posted since the last time. Answers how many completions have come to be owed by that: requests that
    /// come behind a failure are flushed, the unsignaled ones as well.
    fn take_over(&mut self, incoming: &Mutex<Incoming>) -> u64 {
        lock(incoming).take(&mut self.taken);
        let mut silent = 0;
        for (label, request, entries) in self.taken.requests() {
            self.queue.push(label, request, entries);
            silent += u64::from(!label.signaled);
        }
        self.taken.clear();
        if self.ending.is_some() { silent } else { 0 }
    }

    fn execute(&mut self, device: &Core, endpoint: &Endpoint, budget: &mut Budget, news: News) -> Next {
        if endpoint.is_error() {
            return Next::Failed(CompletionStatus::Flushed);
        }
        let Some(transport) = &mut self.transport else { return Next::Idle };
        let regions = &*device.regions;
        let (queue, end) = (&self.queue, self.queue.posted);
        let mut work = Work { endpoint, regions, queue, end, faults: &mut self.faults, budget, news };
        let step = transport.advance(&mut work);
        self.queue.executed += step.executed;
        step.next
    }

    fn fail(&mut self, device: &Arc<Core>, endpoint: &Endpoint, status: CompletionStatus) {
        self.ending = Some(status);
        if let Some(here) = self.transport.as_ref().and_then(Transport::here) {
            leave_on_the_way(device, &endpoint.address, &self.queue, here);
        }
        // Whatever it holds of the peer is released now, so that nothing of it touches memory any more.
        self.transport = None;
        device.break_queue_pair(endpoint);
    }

    /// Turns what was carried out, and after a failure what was not, into completions. Answers the requests that are finished.
    fn report(&mut self, requester: &Arc<Requester>, out: &mut Vec<Done>) -> u64 {
        let first = self.queue.reported;
        let end = if self.ending.is_some() { self.queue.posted } else { self.queue.executed };
        while self.queue.reported < end {
            let index = self.queue.reported;
            let Some(request) = self.queue.get(index) else { break };
            let done = index < self.queue.executed;
            if request.signaled || !done {
                let status = match (done, self.ending) {
                    (true, _) => CompletionStatus::Success,
                    (false, ending) => ending.unwrap_or(CompletionStatus::Flushed),
                };
                let completion = Completion { id: request.id, status, vendor_error: 0 };
                out.push(Done { completion, requester: Arc::clone(requester), retires: index + 1 });
                if !done {
                    self.ending = Some(CompletionStatus::Flushed);
                    self.queue.executed = index + 1;
                }
            }
            self.queue.reported = index + 1;
        }
        self.queue.reported - first
    }
}
