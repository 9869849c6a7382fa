//! What a device says on its own: its port goes down and comes back, a queue pair fails, the address changes, the
//! device is lost.
//!
//! One thread for each device, whatever the number of engines, asleep in `poll` until there is something to read. It
//! notes how the device is, moves the lanes in question to ERROR and wakes their connections; whatever takes time is
//! done by their care-takers ([`super::care`]).

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use once_cell::sync::Lazy;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use super::Connection;
use crate::fabric::{Device, DeviceEvent};
use crate::observe::{self, Label, Snapshot, Source, metrics};

/// Listens to one device. The thread ends when the last reference is dropped.
#[derive(Debug)]
pub struct DeviceEvents {
    listener: Arc<Listener>,
    thread: Option<JoinHandle<()>>,
}

/// How a device is, as far as its events tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceHealth {
    /// Its port is up.
    Up,
    /// Its port is down since then. It may come back.
    PortDown(Instant),
    /// It is lost to this process, for this reason.
    Lost(&'static str),
}

#[derive(Debug)]
struct Listener {
    device: Arc<dyn Device>,
    stop: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    health: DeviceHealth,
    /// How often each kind of event came, by its name.
    counts: BTreeMap<&'static str, u64>,
    connections: Vec<Weak<Connection>>,
}

/// Listeners by the address of their device, which lives as long as they do.
type Listeners = Mutex<HashMap<usize, Weak<DeviceEvents>>>;
static LISTENERS: Lazy<Listeners> = Lazy::new(Listeners::default);

/// How long to wait when the device announces an event and then has none.
const FALSE_ALARM: Duration = Duration::from_millis(10);

impl DeviceEvents {
    /// The listener of `device`, started if there is none.
    pub fn of_device(device: &Arc<dyn Device>) -> std::io::Result<Arc<Self>> {
        let key = Arc::as_ptr(device).cast::<()>() as usize;
        let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(listener) = listeners.get(&key).and_then(Weak::upgrade) {
            return Ok(listener);
        }
        let events = Arc::new(Self::start(Arc::clone(device))?);
        listeners.retain(|_, listener| listener.strong_count() > 0);
        listeners.insert(key, Arc::downgrade(&events));
        observe::registry().add(&events);
        Ok(events)
    }

    fn start(device: Arc<dyn Device>) -> std::io::Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let state = State { health: DeviceHealth::Up, counts: BTreeMap::new(), connections: Vec::new() };
        let listener = Arc::new(Listener { device, stop, state: Mutex::new(state) });
        let thread = listener.device.event_fd().is_some().then(|| {
            let listener = Arc::clone(&listener);
            std::thread::Builder::new().name("p2p-events".to_owned()).spawn(move || listener.run())
        });
        Ok(Self { listener, thread: thread.transpose()? })
    }

    /// How the device is.
    pub fn health(&self) -> DeviceHealth {
        self.listener.lock().health
    }

    /// Tells `connection` of events from now on, as long as it lives.
    pub(super) fn watch(&self, connection: &Arc<Connection>) {
        let mut state = self.listener.lock();
        state.connections.retain(|connection| connection.strong_count() > 0);
        state.connections.push(Arc::downgrade(connection));
    }
}

impl Drop for DeviceEvents {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.listener.stop, &1_u64.to_ne_bytes());
        // The thread itself may drop the last reference, with a connection that it has just woken.
        let thread = self.thread.take().filter(|thread| thread.thread().id() != std::thread::current().id());
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Source for DeviceEvents {
    fn collect(&self, out: &mut Snapshot) {
        let attributes = self.listener.device.attributes();
        let device: [Label; 2] = [("device", attributes.name.clone()), ("port", attributes.port.to_string())];
        let state = self.listener.lock();
        out.number(&metrics::DEVICE_UP, &device, u64::from(state.health == DeviceHealth::Up));
        for (kind, count) in &state.counts {
            let kind: Label = ("kind", (*kind).to_owned());
            out.number(&metrics::DEVICE_EVENTS, &[device.as_slice(), &[kind]].concat(), *count);
        }
    }
}

impl Listener {
    fn run(&self) {
        let Some(events) = self.device.event_fd() else { return };
        loop {
            let mut fds =
                [PollFd::from_borrowed_fd(events, PollFlags::IN), PollFd::new(&self.stop, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!("nobody listens to the device's events any more: {error}");
                    return;
                }
            }
            let [device, stop] = fds.map(|fd| !fd.revents().is_empty());
            if stop {
                return;
            }
            if !device {
                continue;
            }
            let mut found = false;
            while let Some(event) = self.device.poll_event() {
                found = true;
                self.take(event);
            }
            if !found {
                std::thread::sleep(FALSE_ALARM);
            }
        }
    }

    fn take(&self, event: DeviceEvent) {
        let device = &self.device.attributes().name;
        match event {
            DeviceEvent::PortDown | DeviceEvent::CompletionQueueFatal | DeviceEvent::DeviceFatal => {
                tracing::warn!(device, "device event: {event}");
            }
            _ => tracing::info!(device, "device event: {event}"),
        }
        let mut state = self.lock();
        *state.counts.entry(event.kind()).or_default() += 1;
        state.health = after(state.health, event);
        let health = state.health;
        let connections: Vec<_> = state.connections.iter().filter_map(Weak::upgrade).collect();
        drop(state);
        for connection in connections {
            connection.device_event(event, health);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a device is after an event. What is lost stays lost.
fn after(health: DeviceHealth, event: DeviceEvent) -> DeviceHealth {
    match (health, event) {
        (DeviceHealth::Lost(_), _) => health,
        (_, DeviceEvent::DeviceFatal) => DeviceHealth::Lost("the device has failed or was removed"),
        (_, DeviceEvent::CompletionQueueFatal) => DeviceHealth::Lost("a completion queue was lost"),
        (DeviceHealth::Up, DeviceEvent::PortDown) => DeviceHealth::PortDown(Instant::now()),
        (_, DeviceEvent::PortUp) => DeviceHealth::Up,
        _ => health,
    }
}

impl Connection {
    /// Moves the lanes that `event` is about to ERROR, and has a care-taker look at them.
    fn device_event(&self, event: DeviceEvent, health: DeviceHealth) {
        let reason = event.to_string();
        for lane in &self.lanes {
            lane.worker.with_state(|state| match health {
                // Where nobody rebuilds lanes, the device's own retries are the better chance.
                DeviceHealth::PortDown(_) if self.heals => state.break_lane(lane.key, &reason),
                _ => state.notice_broken(lane.key, &reason),
            });
        }
        self.monitor.ring(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_comes_back_and_a_device_does_not() {
        let down = after(DeviceHealth::Up, DeviceEvent::PortDown);
        assert!(matches!(down, DeviceHealth::PortDown(_)));
        assert_eq!(after(down, DeviceEvent::PortDown), down, "since the first of several");
        assert_eq!(after(down, DeviceEvent::AddressChange), down);
        assert_eq!(after(down, DeviceEvent::PortUp), DeviceHealth::Up);
        for fatal in [DeviceEvent::DeviceFatal, DeviceEvent::CompletionQueueFatal] {
            let lost = after(down, fatal);
            assert!(matches!(lost, DeviceHealth::Lost(_)));
            assert_eq!(after(lost, DeviceEvent::PortUp), lost);
            assert_eq!(after(lost, DeviceEvent::PortDown), lost);
        }
        assert_eq!(after(DeviceHealth::Up, DeviceEvent::QueuePairFatal(7)), DeviceHealth::Up);
    }
}
