//! Watches the connections of an engine while they are idle: one thread, asleep until a peer says something, hangs
//! up, or a lane leaves working order. What then is to be done runs on a thread of its own ([`super::care`]), so that
//! one peer in trouble delays no other.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::event::{EventfdFlags, epoll, eventfd};

use super::Connection;
use crate::pool::LaneWatcher;

/// Events taken per wake-up.
const BATCH: usize = 64;

/// The token of the monitor's own eventfd.
const BELL: u64 = u64::MAX;

/// The monitor of one engine.
#[derive(Debug)]
pub struct Monitor {
    epoll: OwnedFd,
    bell: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    next: u64,
    connections: HashMap<u64, Weak<Connection>>,
    /// Connections whose lanes have rung.
    rung: Vec<u64>,
}

impl Monitor {
    /// Starts the thread. It ends after [`Monitor::stop`].
    pub fn start() -> std::io::Result<Arc<Self>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
        let monitor = Arc::new(Self { epoll, bell, state: Mutex::default() });
        let thread = Arc::clone(&monitor);
        std::thread::Builder::new().name("p2p-monitor".to_owned()).spawn(move || thread.run())?;
        Ok(monitor)
    }

    /// Ends the thread. Connections are no longer watched.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.ring_bell();
    }

    /// A number for a connection about to be made, for its lanes to ring with.
    pub(super) fn number(&self) -> u64 {
        let mut state = self.lock();
        state.next += 1;
        state.next
    }

    /// Watches `connection` from now on.
    pub(super) fn watch(&self, number: u64, connection: &Arc<Connection>) -> std::io::Result<()> {
        self.lock().connections.insert(number, Arc::downgrade(connection));
        epoll::add(&self.epoll, &connection.channel, epoll::EventData::new_u64(number), INTEREST)?;
        Ok(())
    }

    /// Watches again after a care-taker has finished: one event per [`Monitor::resume`].
    pub(super) fn resume(&self, number: u64, connection: &Connection) {
        let data = epoll::EventData::new_u64(number);
        // Fails only for a connection that was forgotten meanwhile.
        let _ = epoll::modify(&self.epoll, connection.channel.as_fd(), data, INTEREST);
    }

    /// Watches no longer.
    pub(super) fn forget(&self, number: u64, connection: &Connection) {
        self.lock().connections.remove(&number);
        let _ = epoll::delete(&self.epoll, connection.channel.as_fd());
    }

    /// Something about connection `number` wants care.
    pub(super) fn ring(&self, number: u64) {
        self.lock().rung.push(number);
        self.ring_bell();
    }

    fn ring_bell(&self) {
        // A full counter rings as well.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    fn run(&self) {
        let mut events = Vec::with_capacity(BATCH);
        loop {
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!("the connection monitor ends: {error}");
                    return;
                }
            }
            let mut wanted: Vec<u64> = events.drain(..).map(|event| event.data.u64()).collect();
            let mut counter = [0; 8];
            let _ = rustix::io::read(&self.bell, &mut counter);
            let mut state = self.lock();
            if state.stopped {
                return;
            }
            wanted.append(&mut state.rung);
            let connections: Vec<_> =
                wanted.iter().filter_map(|number| state.connections.get(number)?.upgrade()).collect();
            state.connections.retain(|_, connection| connection.strong_count() > 0);
            drop(state);
            for connection in connections {
                connection.attend();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const INTEREST: epoll::EventFlags =
    epoll::EventFlags::IN.union(epoll::EventFlags::RDHUP).union(epoll::EventFlags::ONESHOT);

/// Passes a lane's change on to the monitor.
#[derive(Debug)]
pub struct LaneBell {
    /// Whom to tell.
    pub monitor: Arc<Monitor>,
    /// About which connection.
    pub number: u64,
}

impl LaneWatcher for LaneBell {
    fn lane_changed(&self) {
        self.monitor.ring(self.number);
    }
}
