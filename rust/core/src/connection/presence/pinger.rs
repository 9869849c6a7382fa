//! Pings to one peer process that is not visible from here.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::liveness::{Liveness, LivenessStep};
use crate::control::{Channel, ChannelFrame};
use crate::events::{EventLoop, EventLoopHandle, Task, Wakeup};
use crate::fork::PerProcess;
use crate::sync::{Mutex, lock};

/// Pings a peer's process for all connections to it: data on any of them counts, and one ping at a time is
/// outstanding. So idle connections cost next to nothing, however many lead to the process.
#[derive(Debug)]
pub struct Pinger {
    process: u64,
    keepalive: Duration,
    shared: Arc<Shared>,
    task: Option<(Task, Arc<EventLoop>)>,
}

#[derive(Debug)]
struct Shared(Mutex<State>);

#[derive(Debug)]
struct State {
    liveness: Liveness,
    /// The control channels of the connections, least recently pinged first, with the wakeups of their tasks.
    members: Vec<(Weak<Channel>, Weak<Wakeup>)>,
    gone: bool,
}

/// By the token of the process and the keepalive time.
type Pingers = Mutex<HashMap<(u64, Duration), Weak<Pinger>>>;
static PINGERS: PerProcess<Pingers> = PerProcess::new(Pingers::default);

/// Start of the ticks of the process.
static EPOCH: PerProcess<Instant> = PerProcess::new(Instant::now);

impl Pinger {
    /// The pinger of the process with the token `process`, which is declared lost after a third of `keepalive`
    /// without data.
    pub(in crate::connection) fn of(process: u64, keepalive: Duration) -> std::io::Result<Arc<Self>> {
        // Dropped after the lock is released.
        let _former;
        let mut pingers = lock(PINGERS.get());
        match pingers.get(&(process, keepalive)).and_then(Weak::upgrade) {
            // It has just answered a handshake, and must not be declared lost before the connection is added.
            Some(known) if known.note_received() => return Ok(known),
            former => _former = former,
        }
        let liveness = Liveness::new(keepalive, *EPOCH.get(), Instant::now());
        let shared = Arc::new(Shared(Mutex::new(State { liveness, members: Vec::new(), gone: false })));
        let (events, asked) = (EventLoop::acquire()?, Arc::clone(&shared));
        let task = events.spawn(move |handle| ping(asked, handle.clone()));
        let pinger = Arc::new(Self { process, keepalive, shared, task: Some((task, events)) });
        pingers.retain(|_, pinger| pinger.strong_count() > 0);
        pingers.insert((process, keepalive), Arc::downgrade(&pinger));
        Ok(pinger)
    }

    /// Adds a connection to the process, or adds it again; `wakeup` is woken when the process is declared lost.
    pub(in crate::connection) fn add(&self, channel: &Arc<Channel>, wakeup: &Arc<Wakeup>) {
        let mut state = lock(&self.shared.0);
        // The peer has just answered a handshake.
        state.liveness.received(Instant::now());
        let added = Arc::downgrade(channel);
        state.members.retain(|(channel, _)| channel.strong_count() > 0 && !channel.ptr_eq(&added));
        state.members.push((added, Arc::downgrade(wakeup)));
    }

    /// The pinger of the same process, which has just answered: another one, if this one has declared it lost.
    pub(in crate::connection) fn renewed(&self) -> std::io::Result<Arc<Self>> {
        Self::of(self.process, self.keepalive)
    }

    /// Data of the process was received.
    pub(in crate::connection) fn received(&self) {
        lock(&self.shared.0).liveness.received(Instant::now());
    }

    /// Records data of the process; false when the process was declared lost before.
    fn note_received(&self) -> bool {
        let mut state = lock(&self.shared.0);
        state.liveness.received(Instant::now());
        !state.gone
    }

    /// Whether the process was declared lost.
    pub(in crate::connection) fn is_gone(&self) -> bool {
        lock(&self.shared.0).gone
    }

    /// The silence after which the process is declared lost.
    pub(in crate::connection) fn limit(&self) -> Duration {
        lock(&self.shared.0).liveness.limit()
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        if let Some((task, _events)) = self.task.take() {
            task.stop_soon();
        }
    }
}

impl State {
    /// Takes the step that is due; false when the process is lost.
    fn check(&mut self, now: Instant) -> bool {
        match self.liveness.check(now) {
            LivenessStep::Wait => {}
            LivenessStep::Ping => self.send_pings(1),
            LivenessStep::PingAll => self.send_pings(self.members.len()),
            // Data has arrived that the connection's task has not read yet.
            LivenessStep::Gone if self.has_unread() => self.liveness.received(now),
            LivenessStep::Gone => self.gone = true,
        }
        !self.gone
    }

    /// Sends `count` pings where sockets accept them, over other connections than the last time, because one path may
    /// be broken.
    fn send_pings(&mut self, count: usize) {
        let mut sent = 0;
        for _ in 0..self.members.len() {
            let (channel, wakeup) = self.members.remove(0);
            let Some(open) = channel.upgrade() else { continue };
            let asked = open.try_send(&ChannelFrame::Ping(0));
            if asked.is_err() {
                // The connection is about to end; one that takes up another channel is added again.
                continue;
            }
            self.members.push((channel, Weak::clone(&wakeup)));
            match asked {
                Ok(true) => sent += 1,
                // The connection's task waits for room in the socket, or has to.
                _ => drop(wakeup.upgrade().map(|wakeup| wakeup.wake())),
            }
            if sent == count {
                return;
            }
        }
    }

    fn has_unread(&self) -> bool {
        self.members.iter().filter_map(|(channel, _)| channel.upgrade()).any(|channel| channel.has_unread())
    }
}

/// Pings until the process is lost, then wakes the tasks of its connections.
async fn ping(shared: Arc<Shared>, handle: EventLoopHandle) {
    loop {
        let next = lock(&shared.0).liveness.next();
        handle.sleep_until(Some(next)).await;
        let mut state = lock(&shared.0);
        if !state.check(Instant::now()) {
            let members = std::mem::take(&mut state.members);
            drop(state);
            members.iter().filter_map(|(_, wakeup)| wakeup.upgrade()).for_each(|wakeup| wakeup.wake());
            return;
        }
    }
}
