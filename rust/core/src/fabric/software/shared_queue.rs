//! What the queue pairs of a completion queue share with it: the list of those with something to do, and the completions.
//!
//! Its lock is held for moments only. Bytes are moved without it, under the lock of their queue pair: several threads may
//! advance several queue pairs, and one at a time each of them.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::device_core::Core;
use super::requester::{Done, Requester, Rest, Turn, TurnEnd};
use super::signal::Signal;
use super::socket_watch::{News, SocketWatch};
use super::work::Budget;
use crate::events::Alarm;
use crate::fabric::{Completion, DeviceEvent, FabricError, Progress};
use crate::sync::{Mutex, MutexGuard, lock};

/// Looks at the sockets that are left out in a row at most: as many take some 10 us.
const MOST_LEFT_OUT: u8 = 16;
/// How often sockets at rest are looked for. A turn of a queue pair without requests takes well under a microsecond.
const IDLE_LOOK: Duration = Duration::from_millis(500);

/// The shared part of a completion queue.
#[derive(Debug)]
pub(super) struct SharedQueue {
    device: Arc<Core>,
    pub(super) signal: Arc<Signal>,
    sockets: Arc<SocketWatch>,
    /// Rings when the first of the waiting queue pairs wants a turn.
    alarm: Alarm,
    depth: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue_pairs: HashMap<u32, Arc<Requester>>,
    /// Queue pairs with something to do, each at most once.
    ready: VecDeque<Arc<Requester>>,
    /// Queue pairs with nothing to do before a time, by number.
    waiting: HashMap<u32, (Instant, Arc<Requester>)>,
    /// Completions that wait to be polled.
    done: VecDeque<Done>,
    /// Room for those of a turn.
    spare: Vec<Done>,
    /// The queue pair that all unfinished requests are of, if it is one.
    only: Option<Arc<Requester>>,
    /// Whether it waits for nothing but answers.
    only_awaits: bool,
    /// How often the sockets were not looked at since they last were.
    looks_left_out: u8,
    /// Requests posted and not finished. Below zero for a moment: a request may be finished before it is counted as posted.
    unfinished: i64,
    /// Completions that a NIC, which does not wait to be polled, might have in its queue by now. Below zero as above.
    owed: i64,
    overrun: bool,
    /// When each queue pair is given a turn next, to close a socket that is at rest; `None`: at the next look.
    idle_look: Option<Instant>,
    /// Why the sockets could not be looked at.
    failure: Option<FabricError>,
}

impl SharedQueue {
    pub(super) fn new(device: Arc<Core>, depth: u32) -> io::Result<Self> {
        let signal = Arc::new(Signal::new()?);
        let alarm = Alarm::new()?;
        let sockets = Arc::new(SocketWatch::new(&[signal.as_fd(), alarm.as_fd()])?);
        Ok(Self { device, signal, sockets, alarm, depth, state: Mutex::default() })
    }

    pub(super) fn device(&self) -> &Arc<Core> {
        &self.device
    }

    pub(super) fn sockets(&self) -> &Arc<SocketWatch> {
        &self.sockets
    }

    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.sockets.as_fd()
    }

    /// A queue pair begins to use this queue.
    pub(super) fn attach(&self, requester: &Arc<Requester>) {
        self.state().queue_pairs.insert(requester.qpn(), Arc::clone(requester));
    }

    /// A queue pair is destroyed, with `rest` unfinished: nothing of it is delivered any more.
    pub(super) fn detach(&self, requester: &Requester, rest: &Rest) {
        let qpn = requester.qpn();
        let mut state = self.state();
        requester.set_turn(Turn::Gone);
        state.queue_pairs.remove(&qpn);
        state.only = None;
        state.waiting.remove(&qpn);
        state.ready.retain(|other| other.qpn() != qpn);
        let before = state.done.len();
        state.done.retain(|done| done.requester.qpn() != qpn);
        let undelivered = (before - state.done.len()) as u64;
        state.owed -= (rest.owed + undelivered) as i64;
        state.unfinished -= rest.unfinished as i64;
    }

    /// `posted` requests were added to the queue pair, of which `owed` want a completion.
    pub(super) fn enqueue(&self, requester: &Arc<Requester>, posted: u64, owed: u64) {
        let mut state = self.state();
        state.note_posted(requester);
        state.unfinished += posted as i64;
        self.owe(&mut state, owed);
        if state.want(requester) {
            drop(state);
            self.signal.wake();
        }
    }

    /// Moves bytes: gives a turn to each queue pair with something to do, as far as the budget of one call goes. True when that
    /// has left something for a worker that may be asleep.
    pub(super) fn run(&self) -> bool {
        let mut state = self.state();
        if let Err(error) = self.collect(&mut state) {
            state.failure = Some(error);
            return true;
        }
        let mut budget = Budget::of_one_poll();
        let mut done = std::mem::take(&mut state.spare);
        let (mut waits, mut news) = (false, false);
        for _ in 0..state.ready.len() {
            if budget.is_spent() {
                break;
            }
            let Some(requester) = state.next_ready() else { break };
            drop(state);
            let end = requester.advance(&mut budget, &mut done);
            state = self.state();
            news |= !done.is_empty();
            waits |= end.later.is_some();
            news |= self.note(&mut state, requester, &end, &mut done);
        }
        state.spare = done;
        if waits && self.signal.is_armed() {
            // The worker may be asleep, and another thread works in its place.
            if let Err(error) = self.set_alarm(&state) {
                state.failure = Some(error);
            }
        }
        news
    }

    /// Moves completions into `out`, and says how many.
    pub(super) fn report(&self, out: &mut [Completion]) -> Result<usize, FabricError> {
        let mut state = self.state();
        if state.overrun {
            return Err(FabricError::call("poll completion queue", self.device.name(), libc::EOVERFLOW)
                .with_hint("more requests were outstanding than the completion queue has entries"));
        }
        if let Some(error) = state.failure.take() {
            return Err(error);
        }
        let count = state.done.len().min(out.len());
        for (slot, done) in out.iter_mut().zip(state.done.drain(..count)) {
            *slot = done.polled();
        }
        state.owed -= count as i64;
        Ok(count)
    }

    /// From now on the descriptor tells. False when there is something to do or to poll already.
    pub(super) fn arm(&self) -> Result<bool, FabricError> {
        self.signal.arm();
        let mut state = self.state();
        self.collect_changed(&mut state);
        self.look_at_sockets(&mut state)?;
        self.set_alarm(&state)?;
        Ok(state.ready.is_empty() && state.done.is_empty() && state.failure.is_none() && !state.overrun)
    }

    /// Consumes the readiness of the descriptor.
    pub(super) fn acknowledge(&self) {
        self.signal.acknowledge();
        self.alarm.acknowledge();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn owe(&self, state: &mut State, owed: u64) {
        state.owed += owed as i64;
        if state.owed > i64::from(self.depth) && !state.overrun {
            state.overrun = true;
            self.device.raise(DeviceEvent::CompletionQueueFatal);
            for requester in state.queue_pairs.values() {
                requester.endpoint().set_error();
            }
        }
    }

    /// Takes in what a turn of a queue pair came to. True if it has more to do, also because something came for it meanwhile.
    fn note(
        &self,
        state: &mut State,
        requester: Arc<Requester>,
        end: &TurnEnd,
        done: &mut Vec<Done>,
    ) -> bool {
        state.unfinished -= end.finished as i64;
        if requester.turn() == Turn::Gone {
            // Destroyed meanwhile: what it has completed is not delivered.
            state.owed += end.newly_owed as i64 - done.len() as i64;
            done.clear();
            return false;
        }
        self.owe(state, end.newly_owed);
        state.done.extend(done.drain(..));
        state.only_awaits = end.awaits;
        let wanted = requester.turn() == Turn::RunningAndWanted;
        requester.set_turn(Turn::Idle);
        if end.more || wanted {
            state.want(&requester);
            return true;
        }
        if let Some(time) = end.later {
            state.waiting.insert(requester.qpn(), (time, requester));
        }
        false
    }

    /// Makes a queue pair ready if another thread changed it, if its time has come, or if its socket is ready.
    fn collect(&self, state: &mut State) -> Result<(), FabricError> {
        self.collect_changed(state);
        if self.sockets.carrying() == 0 {
            return Ok(());
        }
        state.look_for_idle(Instant::now());
        if state.leaves_sockets_out() { Ok(()) } else { self.look_at_sockets(state) }
    }

    fn collect_changed(&self, state: &mut State) {
        if self.signal.take_sweep() {
            let changed: Vec<_> =
                state.queue_pairs.values().filter(|other| other.is_broken()).cloned().collect();
            for requester in &changed {
                state.want(requester);
            }
        }
        if !state.waiting.is_empty() {
            state.take_due();
        }
    }

    fn look_at_sockets(&self, state: &mut State) -> Result<(), FabricError> {
        state.looks_left_out = 0;
        let news = |qpn: u32, news: News| {
            if let Some(requester) = state.queue_pairs.get(&qpn).cloned() {
                requester.mark_news(news);
                state.want(&requester);
            }
        };
        self.sockets.look(news).map_err(|errno| self.call_failed("epoll_wait", errno))
    }

    fn set_alarm(&self, state: &State) -> Result<(), FabricError> {
        let Some(first) = state.waiting.values().map(|(time, _)| *time).min() else { return Ok(()) };
        self.alarm.set(first).map_err(|errno| self.call_failed("timerfd_settime", errno))
    }

    fn call_failed(&self, call: &'static str, errno: Errno) -> FabricError {
        FabricError::call(call, self.device.name(), errno.raw_os_error())
    }
}

impl Progress for SharedQueue {
    fn advance(&self) {
        let state = self.state();
        if state.unfinished == 0 && state.ready.is_empty() && !self.signal.wants_sweep() {
            // Nothing but sockets that may have been at rest for long.
            if self.sockets.carrying() == 0 || !state.is_idle_look_due(Instant::now()) {
                return;
            }
        }
        drop(state);
        if self.run() {
            self.signal.wake_if_armed();
        }
    }
}

impl State {
    /// The queue pair has something to do. True if it was not in the list and no thread advances it.
    fn want(&mut self, requester: &Arc<Requester>) -> bool {
        match requester.turn() {
            Turn::Idle => {
                requester.set_turn(Turn::Queued);
                self.ready.push_back(Arc::clone(requester));
                return true;
            }
            Turn::Running => requester.set_turn(Turn::RunningAndWanted),
            Turn::Queued | Turn::RunningAndWanted | Turn::Gone => {}
        }
        false
    }

    /// Requests of a queue pair are about to be counted.
    fn note_posted(&mut self, requester: &Arc<Requester>) {
        if self.unfinished == 0 {
            self.only = Some(Arc::clone(requester));
            self.only_awaits = false;
        } else if self.only.as_ref().is_some_and(|only| only.qpn() != requester.qpn()) {
            self.only = None;
        }
    }

    /// Whether the sockets need no look now. While one queue pair has all that is to be done, its own calls show what has come
    /// for it, in half the time. The others have nothing to say but that their peer has closed.
    fn leaves_sockets_out(&mut self) -> bool {
        let Some(only) = self.only.clone().filter(|_| self.unfinished > 0) else { return false };
        if self.looks_left_out >= MOST_LEFT_OUT {
            return false;
        }
        if self.ready.is_empty() {
            if !self.only_awaits || only.turn() != Turn::Idle {
                return false;
            }
            only.mark_news(News::Awaited);
            self.want(&only);
        }
        self.looks_left_out += 1;
        true
    }

    /// Takes the first queue pair of the ready list, and gives it the turn.
    fn next_ready(&mut self) -> Option<Arc<Requester>> {
        let requester = self.ready.pop_front()?;
        requester.set_turn(Turn::Running);
        Some(requester)
    }

    fn is_idle_look_due(&self, now: Instant) -> bool {
        self.idle_look.is_none_or(|time| now >= time)
    }

    /// Gives each queue pair a turn now and then.
    fn look_for_idle(&mut self, now: Instant) {
        if self.is_idle_look_due(now) {
            self.idle_look = Some(now + IDLE_LOOK);
            let all: Vec<_> = self.queue_pairs.values().cloned().collect();
            for requester in &all {
                self.want(requester);
            }
        }
    }

    fn take_due(&mut self) {
        let now = Instant::now();
        let due: Vec<_> =
            self.waiting.extract_if(|_, (time, _)| *time <= now).map(|(_, (_, due))| due).collect();
        for requester in &due {
            self.want(requester);
        }
    }
}
