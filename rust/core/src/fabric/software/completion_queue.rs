//! The completion queue: the place where requests are carried out, for nothing moves unless somebody polls.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::denial;
use super::device::Core;
use super::queue_pair::Inner;
use super::signal::Signal;
use super::work::Budget;
use crate::events::Alarm;
use crate::fabric::{Completion, CompletionQueue, DeviceEvent, FabricError, QueueHandle};

/// The token of the queue's own signal and alarm among the descriptors of its epoll; queue pair numbers are never 0.
const SIGNAL_TOKEN: u64 = 0;
/// Sockets with news that one call of `poll` hears of; the others are heard of in the next.
const EVENTS: usize = 64;

/// What the queue pairs of a completion queue share with it.
#[derive(Debug)]
pub(super) struct Shared {
    device: Arc<Core>,
    pub(super) signal: Arc<Signal>,
    /// The signal, the alarm, and the sockets of queue pairs that have one.
    epoll: OwnedFd,
    /// Rings when the first of the waiting queue pairs wants a turn.
    alarm: Alarm,
    depth: u32,
    /// Sockets in the epoll that bytes travel on. Changed by whoever connects or closes one, read by `poll`, which
    /// leaves the epoll alone when there are none; Relaxed, for a socket without a request on it has nothing to say.
    sockets: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue_pairs: HashMap<u32, Arc<Inner>>,
    /// Queue pairs with something to do, each at most once.
    ready: VecDeque<Arc<Inner>>,
    /// Queue pairs with nothing to do before a time, by number.
    waiting: HashMap<u32, (Instant, Arc<Inner>)>,
    /// Completions that a NIC, which does not wait to be polled, might have in its queue by now.
    owed: u64,
    overrun: bool,
}

impl Shared {
    fn new(device: Arc<Core>, depth: u32) -> io::Result<Self> {
        let signal = Arc::new(Signal::new()?);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &*signal, epoll::EventData::new_u64(SIGNAL_TOKEN), epoll::EventFlags::IN)?;
        let alarm = Alarm::new()?;
        epoll::add(&epoll, &alarm, epoll::EventData::new_u64(SIGNAL_TOKEN), epoll::EventFlags::IN)?;
        Ok(Self {
            device,
            signal,
            epoll,
            alarm,
            depth,
            sockets: AtomicUsize::new(0),
            state: Mutex::new(State::default()),
        })
    }

    pub(super) fn device(&self) -> &Arc<Core> {
        &self.device
    }

    /// A queue pair begins to use this queue.
    pub(super) fn attach(&self, queue_pair: &Arc<Inner>) {
        self.state().queue_pairs.insert(queue_pair.qpn(), Arc::clone(queue_pair));
    }

    /// A queue pair is destroyed: what it was owed is not delivered any more.
    pub(super) fn detach(&self, queue_pair: &Inner, owed: u64) {
        let mut state = self.state();
        state.queue_pairs.remove(&queue_pair.qpn());
        state.waiting.remove(&queue_pair.qpn());
        state.ready.retain(|other| other.qpn() != queue_pair.qpn());
        state.owed = state.owed.saturating_sub(owed);
    }

    /// The queue pair has something to do; `owed` more completions may come of it.
    pub(super) fn enqueue(&self, queue_pair: &Arc<Inner>, owed: u64) {
        let mut state = self.state();
        self.owe(&mut state, owed);
        if queue_pair.mark_ready() {
            state.ready.push_back(Arc::clone(queue_pair));
            drop(state);
            self.signal.wake();
        }
    }

    /// Lets the descriptor tell when `socket` can be read or written. Of one that carries bytes, `poll` wants to know
    /// too; one that only says that the peer is gone need not be looked at in every call.
    pub(super) fn watch(&self, qpn: u32, socket: BorrowedFd<'_>, carries_bytes: bool) -> io::Result<()> {
        let mut flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        if carries_bytes {
            flags |= epoll::EventFlags::OUT;
        }
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(u64::from(qpn)), flags)?;
        self.sockets.fetch_add(usize::from(carries_bytes), Ordering::Relaxed);
        Ok(())
    }

    /// Forgets a socket that is about to be closed.
    pub(super) fn unwatch(&self, socket: BorrowedFd<'_>, carries_bytes: bool) {
        if epoll::delete(&self.epoll, socket).is_ok() {
            self.sockets.fetch_sub(usize::from(carries_bytes), Ordering::Relaxed);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owe(&self, state: &mut State, owed: u64) {
        state.owed += owed;
        if state.owed > u64::from(self.depth) && !state.overrun {
            state.overrun = true;
            self.device.raise(DeviceEvent::CompletionQueueFatal);
            for queue_pair in state.queue_pairs.values() {
                queue_pair.endpoint().set_error();
            }
        }
    }

    /// Puts every queue pair that others changed, whose time has come or whose socket has news among the ready ones.
    fn collect(&self, state: &mut State) -> Result<(), FabricError> {
        if self.signal.take_sweep() {
            let changed: Vec<_> =
                state.queue_pairs.values().filter(|queue_pair| queue_pair.needs_care()).cloned().collect();
            changed.into_iter().for_each(|queue_pair| push_ready(state, queue_pair));
        }
        if !state.waiting.is_empty() {
            take_due(state);
        }
        if self.sockets.load(Ordering::Relaxed) > 0 { self.look_at_sockets(state) } else { Ok(()) }
    }

    fn look_at_sockets(&self, state: &mut State) -> Result<(), FabricError> {
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let events = match epoll::wait(&self.epoll, &mut room, Some(&now)) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return Ok(()),
            Err(errno) => {
                return Err(FabricError::call("epoll_wait", self.device.name(), errno.raw_os_error()));
            }
        };
        for event in events {
            let token = event.data.u64() as u32;
            if let Some(queue_pair) = state.queue_pairs.get(&token).cloned() {
                queue_pair.mark_news();
                push_ready(state, queue_pair);
            }
        }
        Ok(())
    }

    fn poll(&self, out: &mut [Completion]) -> Result<usize, FabricError> {
        let mut state = self.state();
        if state.overrun {
            return Err(FabricError::call("poll completion queue", self.device.name(), libc::EOVERFLOW)
                .with_hint("more requests were outstanding than the completion queue has entries"));
        }
        self.collect(&mut state)?;
        let mut budget = Budget::of_one_poll();
        let (mut found, mut waits) = (0, false);
        for _ in 0..state.ready.len() {
            let Some(free) = out.get_mut(found..).filter(|free| !free.is_empty() && !budget.is_spent())
            else {
                break;
            };
            let Some(queue_pair) = state.ready.pop_front() else { break };
            queue_pair.clear_ready();
            let progress = queue_pair.advance(free, &mut budget);
            found += progress.reported;
            state.owed = state.owed.saturating_sub(progress.settled);
            self.owe(&mut state, progress.newly_owed);
            if progress.more {
                push_ready(&mut state, queue_pair);
            } else if let Some(time) = progress.later {
                state.waiting.insert(queue_pair.qpn(), (time, queue_pair));
                waits = true;
            }
        }
        if waits && self.signal.is_armed() {
            // The worker may be asleep, and a caller polls in its place.
            self.set_alarm(&state)?;
        }
        Ok(found)
    }

    fn arm(&self) -> Result<bool, FabricError> {
        self.signal.arm();
        let mut state = self.state();
        self.collect(&mut state)?;
        self.look_at_sockets(&mut state)?;
        self.set_alarm(&state)?;
        Ok(state.ready.is_empty() && !state.overrun)
    }

    fn set_alarm(&self, state: &State) -> Result<(), FabricError> {
        let Some(first) = state.waiting.values().map(|(time, _)| *time).min() else { return Ok(()) };
        let error =
            |errno: Errno| FabricError::call("timerfd_settime", self.device.name(), errno.raw_os_error());
        self.alarm.set(first).map_err(error)
    }
}

fn take_due(state: &mut State) {
    let now = Instant::now();
    let State { waiting, ready, .. } = state;
    waiting.retain(|_, (time, queue_pair)| {
        let due = *time <= now;
        if due && queue_pair.mark_ready() {
            ready.push_back(Arc::clone(queue_pair));
        }
        !due
    });
}

fn push_ready(state: &mut State, queue_pair: Arc<Inner>) {
    if queue_pair.mark_ready() {
        state.ready.push_back(queue_pair);
    }
}

/// The handle that its worker owns.
#[derive(Debug)]
pub(super) struct SoftwareCompletionQueue {
    shared: Arc<Shared>,
}

impl SoftwareCompletionQueue {
    pub(super) fn new(device: Arc<Core>, depth: u32) -> Result<Self, FabricError> {
        let name = device.name().to_owned();
        let shared = Shared::new(device, depth)
            .map_err(|error| denial::failure("create completion queue", &name, &error))?;
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl CompletionQueue for SoftwareCompletionQueue {
    fn poll(&mut self, out: &mut [Completion]) -> Result<usize, FabricError> {
        self.shared.poll(out)
    }

    fn arm(&mut self) -> Result<bool, FabricError> {
        self.shared.arm()
    }

    fn acknowledge(&mut self) -> Result<(), FabricError> {
        self.shared.signal.acknowledge();
        self.shared.alarm.acknowledge();
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.shared.epoll.as_fd()
    }

    fn depth(&self) -> u32 {
        self.shared.depth
    }

    fn handle(&self) -> QueueHandle {
        QueueHandle::new(Arc::clone(&self.shared))
    }
}
