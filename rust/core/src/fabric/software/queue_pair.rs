//! The queue pair: RC's states and order over whichever transport reaches the peer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::io::Errno;

use super::completion_queue::Shared;
use super::connect;
use super::device::{Core, SoftwareDevice};
use super::endpoint::Endpoint;
use super::faults::Faults;
use super::in_process::InProcess;
use super::same_host::SameHost;
use super::send_queue::{Label, SendQueue};
use super::tcp::initiator::Initiator;
use super::transport::{Budget, Next, Step, Work};
use crate::events::Waiter;
use crate::fabric::{
    Batch, Completion, CompletionStatus, Connecting, FabricError, PathKind, PathOptions, Paths, Posted,
    QpAddress, QueuePair, QueuePairCaps, Sge, WorkQueue, WorkRequest,
};
use std::sync::atomic::{AtomicBool, Ordering};

/// How the bytes of a queue pair reach its peer.
#[derive(Debug)]
pub(super) enum Transport {
    InProcess(InProcess),
    SameHost(Box<SameHost>),
    Tcp(Initiator),
}

impl Transport {
    fn advance(&mut self, work: &mut Work<'_>) -> Step {
        match self {
            Self::InProcess(in_process) => in_process.advance(work),
            Self::SameHost(same_host) => same_host.advance(work),
            Self::Tcp(initiator) => initiator.advance(work),
        }
    }

    pub(super) fn paths(&self) -> Paths {
        match self {
            Self::InProcess(_) => Paths::both(PathKind::InProcess),
            Self::SameHost(same_host) => same_host.paths(),
            Self::Tcp(_) => Paths::both(PathKind::Tcp),
        }
    }
}

/// A queue pair as its completion queue sees it.
#[derive(Debug)]
pub(super) struct Inner {
    device: Arc<Core>,
    endpoint: Arc<Endpoint>,
    /// True while it is in its completion queue's ready list. Changed under that list's lock only; Relaxed.
    ready: AtomicBool,
    /// Its socket has news. Set and taken by the polling thread; Relaxed.
    news: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    queue: SendQueue,
    faults: Faults,
    transport: Option<Transport>,
    /// Once in ERROR: how the first unfinished request ends. The later ones are flushed.
    ending: Option<CompletionStatus>,
}

/// What a turn in [`super::completion_queue`] came to.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Completions written.
    pub(super) reported: usize,
    /// Completions that are not owed any more.
    pub(super) settled: u64,
    /// Completions that have come to be owed: those of unsignaled requests that will be flushed.
    pub(super) newly_owed: u64,
    /// Whether it wants another turn without being asked.
    pub(super) more: bool,
    /// Otherwise when it wants one, if it knows.
    pub(super) later: Option<Instant>,
}

impl Inner {
    pub(super) fn qpn(&self) -> u32 {
        self.endpoint.qpn()
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Notes that it is in the ready list; false when it was.
    pub(super) fn mark_ready(&self) -> bool {
        !self.ready.swap(true, Ordering::Relaxed)
    }

    pub(super) fn clear_ready(&self) {
        self.ready.store(false, Ordering::Relaxed);
    }

    /// Notes that its socket has news.
    pub(super) fn mark_news(&self) {
        self.news.store(true, Ordering::Relaxed);
    }

    /// Whether a change from outside is to be looked at.
    pub(super) fn needs_care(&self) -> bool {
        self.endpoint.is_error() || self.endpoint.is_peer_gone()
    }

    /// Carries out what the budget allows and reports what is done.
    pub(super) fn advance(&self, out: &mut [Completion], budget: &mut Budget) -> Progress {
        let mut state = self.state();
        let mut progress = Progress::default();
        let mut next = Next::Idle;
        if state.ending.is_none() {
            let news = self.news.swap(false, Ordering::Relaxed);
            next = state.execute(&self.device, &self.endpoint, budget, news);
            if self.endpoint.is_error() {
                next = Next::Failed(CompletionStatus::Flushed);
            }
            if let Next::Failed(status) = next {
                state.fail(&self.device, &self.endpoint, status);
                progress.newly_owed = state.queue.silent_pending();
            }
        }
        state.report(out, &mut progress);
        progress.more = next == Next::More || state.has_unreported();
        progress.later = match next {
            Next::Later(time) => Some(time),
            _ => None,
        };
        progress
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn accept(&mut self, label: Label, request: &WorkRequest, entries: &[Sge]) -> Result<(), Errno> {
        if self.faults.lies_about(self.queue.posted + 1) {
            // Without bytes there is nothing to move, and nothing that could fail.
            let empty = WorkRequest { first_sge: 0, sge_count: 1, inline: false, ..*request };
            return self.queue.push(label, &empty, &[Sge::default()]);
        }
        self.queue.push(label, request, entries)
    }

    fn execute(&mut self, device: &Core, endpoint: &Endpoint, budget: &mut Budget, news: bool) -> Next {
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

    fn fail(&mut self, device: &Core, endpoint: &Endpoint, status: CompletionStatus) {
        self.ending = Some(status);
        // Whatever it holds of the peer is let go now, so that nothing of it touches memory any more.
        self.transport = None;
        device.break_queue_pair(endpoint);
    }

    fn has_unreported(&self) -> bool {
        let end = if self.ending.is_some() { self.queue.posted } else { self.queue.executed };
        self.queue.reported < end
    }

    /// Turns what was carried out, and after a failure what was not, into completions.
    fn report(&mut self, out: &mut [Completion], progress: &mut Progress) {
        let mut slots = out.iter_mut();
        while self.has_unreported() {
            let index = self.queue.reported;
            let Some(request) = self.queue.get(index) else { return };
            let done = index < self.queue.executed;
            if request.signaled || !done {
                let status = match (done, self.ending) {
                    (true, _) => CompletionStatus::Success,
                    (false, ending) => ending.unwrap_or(CompletionStatus::Flushed),
                };
                let Some(slot) = slots.next() else { return };
                *slot = Completion { id: request.id, status, vendor_error: 0 };
                if !done {
                    self.ending = Some(CompletionStatus::Flushed);
                    self.queue.executed = index + 1;
                }
                self.queue.retired = index + 1;
                progress.reported += 1;
                progress.settled += 1;
            }
            self.queue.reported = index + 1;
        }
    }
}

/// The handle that its worker owns.
#[derive(Debug)]
pub(super) struct SoftwareQueuePair {
    device: Arc<SoftwareDevice>,
    completions: Arc<Shared>,
    inner: Arc<Inner>,
    /// Those that it was connected with.
    paths: Paths,
}

impl SoftwareQueuePair {
    pub(super) fn new(
        device: Arc<SoftwareDevice>,
        completions: Arc<Shared>,
        endpoint: Arc<Endpoint>,
        caps: QueuePairCaps,
        faults: Faults,
    ) -> Self {
        let state = State { queue: SendQueue::new(caps), faults, transport: None, ending: None };
        let inner = Arc::new(Inner {
            device: Arc::clone(device.core()),
            endpoint,
            ready: AtomicBool::new(false),
            news: AtomicBool::new(false),
            state: Mutex::new(state),
        });
        completions.attach(&inner);
        Self { device, completions, inner, paths: Paths::both(PathKind::None) }
    }
}

impl QueuePair for SoftwareQueuePair {
    fn address(&self) -> QpAddress {
        self.inner.endpoint.address
    }

    fn connect_with<'a>(
        &'a mut self,
        peer: &'a QpAddress,
        path: &'a PathOptions,
        waiter: &'a Waiter,
    ) -> Connecting<'a> {
        Box::pin(async move {
            let (core, endpoint) = (self.device.core(), &self.inner.endpoint);
            let transport = connect::connect(core, endpoint, &self.completions, peer, path, waiter).await?;
            self.paths = transport.paths();
            self.inner.state().transport = Some(transport);
            Ok(())
        })
    }

    fn connects_by_commands(&self) -> bool {
        false
    }
}

impl WorkQueue for SoftwareQueuePair {
    fn caps(&self) -> QueuePairCaps {
        self.inner.state().queue.caps()
    }

    fn post(&mut self, batch: &Batch<'_>) -> Posted {
        let mut state = self.inner.state();
        let failed = state.ending.is_some() || self.inner.endpoint.is_error();
        let mut posted = Posted { accepted: 0, errno: None };
        let mut owed = 0;
        for (index, request) in batch.requests.iter().enumerate() {
            let label = Label::of(batch, index);
            let answer = if state.transport.is_none() && !failed {
                Err(libc::EINVAL)
            } else if state.faults.refuses_post() {
                Err(libc::ENOMEM)
            } else {
                state.accept(label, request, batch.entries).map_err(|errno| errno.raw_os_error())
            };
            if let Err(errno) = answer {
                posted = Posted::cut(posted.accepted, errno);
                break;
            }
            posted.accepted += 1;
            // Before its failure is noticed in a turn, an unsignaled request is not counted: the turn will.
            owed += u64::from(label.signaled || state.ending.is_some());
        }
        drop(state);
        if posted.accepted > 0 {
            self.completions.enqueue(&self.inner, owed);
        }
        posted
    }

    fn set_error(&mut self) -> Result<(), FabricError> {
        self.device.core().break_queue_pair(&self.inner.endpoint);
        Ok(())
    }

    fn is_broken(&self) -> bool {
        self.inner.needs_care()
    }

    fn paths(&self) -> Paths {
        self.inner.state().transport.as_ref().map_or(self.paths, Transport::paths)
    }
}

impl Drop for SoftwareQueuePair {
    fn drop(&mut self) {
        self.device.core().remove_queue_pair(&self.inner.endpoint);
        let mut state = self.inner.state();
        let owed = (state.queue.reported..state.queue.posted)
            .filter(|index| {
                let signaled = state.queue.get(*index).is_some_and(|request| request.signaled);
                signaled || (state.ending.is_some() && *index >= state.queue.executed)
            })
            .count() as u64;
        state.transport = None;
        drop(state);
        self.completions.detach(&self.inner, owed);
    }
}
