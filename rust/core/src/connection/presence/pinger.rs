//! The pings to one process that cannot be seen from here.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::liveness::{Liveness, LivenessStep};
use crate::control::{Channel, ChannelFrame};
use crate::events::{EventLoop, Handle, Task, Wakeup};
use crate::fork::PerProcess;
use crate::sync::{Mutex, lock};

/// Asks a peer's process whether it is there, for all connections to it: what it says on any of them is life, and one
/// question at a time is under way. So connections that are idle cost next to nothing, however many lead to it.
#[derive(Debug)]
pub struct Pinger {
    shared: Arc<Shared>,
    task: Option<(Task, Arc<EventLoop>)>,
}

#[derive(Debug)]
struct Shared(Mutex<State>);

#[derive(Debug)]
struct State {
    liveness: Liveness,
    /// The control channels of the connections, the one first that was asked longest ago, and what wakes their tasks.
    members: Vec<(Weak<Channel>, Weak<Wakeup>)>,
    gone: bool,
}

/// By the number that names the process, and the keepalive time.
type Pingers = Mutex<HashMap<(u64, Duration), Weak<Pinger>>>;
static PINGERS: PerProcess<Pingers> = PerProcess::new(Pingers::default);

/// Of the beats of the process.
static EPOCH: PerProcess<Instant> = PerProcess::new(Instant::now);

impl Pinger {
    /// That of the process which calls itself `process`; it is missed within a third of `keepalive`.
    pub(super) fn of(process: u64, keepalive: Duration) -> std::io::Result<Arc<Self>> {
        // Dropped after the lock is given back.
        let _former;
        let mut pingers = lock(PINGERS.get());
        match pingers.get(&(process, keepalive)).and_then(Weak::upgrade) {
            // Heard: it has just answered a handshake, and must not be given up before the connection is added.
            Some(known) if known.note_received() => return Ok(known),
            former => _former = former,
        }
        let liveness = Liveness::new(keepalive, *EPOCH.get(), Instant::now());
        let shared = Arc::new(Shared(Mutex::new(State { liveness, members: Vec::new(), gone: false })));
        let (events, asked) = (EventLoop::acquire()?, Arc::clone(&shared));
        let task = events.spawn(move |handle| ping(asked, handle.clone()));
        let pinger = Arc::new(Self { shared, task: Some((task, events)) });
        pingers.retain(|_, pinger| pinger.strong_count() > 0);
        pingers.insert((process, keepalive), Arc::downgrade(&pinger));
        Ok(pinger)
    }

    /// A connection to the process; `wakeup` is woken if that is given up.
    pub(in crate::connection) fn add(&self, channel: &Arc<Channel>, wakeup: &Arc<Wakeup>) {
        let mut state = lock(&self.shared.0);
        // It has answered a handshake just now.
        state.liveness.received(Instant::now());
        state.members.retain(|(channel, _)| channel.strong_count() > 0);
        state.members.push((Arc::downgrade(channel), Arc::downgrade(wakeup)));
    }

    /// The process has said something.
    pub(in crate::connection) fn received(&self) {
        lock(&self.shared.0).liveness.received(Instant::now());
    }

    /// Notes that the process has said something; false when it has been given up before.
    fn note_received(&self) -> bool {
        let mut state = lock(&self.shared.0);
        state.liveness.received(Instant::now());
        !state.gone
    }

    /// Whether it has been given up.
    pub(in crate::connection) fn is_gone(&self) -> bool {
        lock(&self.shared.0).gone
    }

    /// How long it is silent when it is.
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
    /// Looks once; false when the process is gone.
    fn check(&mut self, now: Instant) -> bool {
        match self.liveness.check(now) {
            LivenessStep::Wait => {}
            LivenessStep::Ping => self.send_pings(1),
            LivenessStep::PingAll => self.send_pings(self.members.len()),
            // What has come, its connection's task may not have had the time to read.
            LivenessStep::Gone if self.has_unread() => self.liveness.received(now),
            LivenessStep::Gone => self.gone = true,
        }
        !self.gone
    }

    /// Sends so many pings where sockets take them: over other connections than the last time, for one way may be broken.
    fn send_pings(&mut self, count: usize) {
        let mut sent = 0;
        for _ in 0..self.members.len() {
            let (channel, wakeup) = self.members.remove(0);
            let Some(open) = channel.upgrade() else { continue };
            let asked = open.try_send(&ChannelFrame::Ping(0));
            if asked.is_err() {
                // Its connection ends.
                continue;
            }
            self.members.push((channel, Weak::clone(&wakeup)));
            match asked {
                Ok(true) => sent += 1,
                // Its task waits for room in the socket, or has to.
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

/// Asks until the process is gone, and tells its connections then.
async fn ping(shared: Arc<Shared>, handle: Handle) {
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
