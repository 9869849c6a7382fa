//! Asynchronous events of a device: its port goes down and comes back, a queue pair fails, the address changes, the
//! device is lost.
//!
//! One task of the event loop for each device, whatever the number of engines. It records the device's health and has
//! a helper thread move the affected lanes to ERROR, which wakes the recovery of their connections.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::Connection;
use crate::events::{EventLoop, EventLoopHandle, Task};
use crate::fabric::{Device, DeviceEvent};
use crate::fork::PerProcess;
use crate::observe::{self, Label, Snapshot, Source, metrics, report};

/// The events of one device. They are read for as long as this lives.
#[derive(Debug)]
pub struct DeviceEvents {
    /// `None` for a device without events. Dropped before the listener, so that the device is not closed by the task.
    _task: Option<(Task, Arc<EventLoop>)>,
    listener: Arc<Listener>,
}

/// The health of a device, according to its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceHealth {
    /// Its port is up.
    Up,
    /// Its port is down since this time. It may come up again.
    PortDown(Instant),
    /// It can no longer be used by this process, for this reason.
    Lost(&'static str),
}

#[derive(Debug)]
struct Listener {
    device: Arc<dyn Device>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    health: DeviceHealth,
    /// Count of each kind of event, by its name.
    counts: BTreeMap<&'static str, u64>,
    connections: Vec<Weak<Connection>>,
}

/// Listeners by the address of their device, which lives as long as they do.
type Listeners = Mutex<HashMap<usize, Weak<DeviceEvents>>>;
static LISTENERS: PerProcess<Listeners> = PerProcess::new(Listeners::default);

/// Pause after the device's descriptor was readable without an event.
const FALSE_ALARM: Duration = Duration::from_millis(10);

impl DeviceEvents {
    /// The listener of `device`, started if there is none.
    pub fn of_device(device: &Arc<dyn Device>) -> std::io::Result<Arc<Self>> {
        let key = Arc::as_ptr(device).cast::<()>() as usize;
        let mut listeners = LISTENERS.get().lock().unwrap_or_else(PoisonError::into_inner);
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
        let state = State { health: DeviceHealth::Up, counts: BTreeMap::new(), connections: Vec::new() };
        let listener = Arc::new(Listener { device, state: Mutex::new(state) });
        let mut task = None;
        if let Some(descriptor) = listener.device.event_fd() {
            let (events, descriptor) = (EventLoop::acquire()?, descriptor.try_clone_to_owned()?);
            let listener = Arc::clone(&listener);
            task = Some((events.spawn(move |handle| listen(listener, descriptor, handle.clone())), events));
        }
        Ok(Self { _task: task, listener })
    }

    /// The health of the device.
    pub fn health(&self) -> DeviceHealth {
        self.listener.lock().health
    }

    /// Notifies `connection` of events from now on, for as long as it exists.
    pub(super) fn watch(&self, connection: &Arc<Connection>) {
        let mut state = self.listener.lock();
        state.connections.retain(|connection| connection.strong_count() > 0);
        state.connections.push(Arc::downgrade(connection));
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

/// Reads the events of a device until the task is stopped.
async fn listen(listener: Arc<Listener>, descriptor: OwnedFd, handle: EventLoopHandle) {
    let mut descriptor = match handle.watch(descriptor) {
        Ok(descriptor) => descriptor,
        Err(error) => {
            let device = &listener.device.attributes().name;
            tracing::error!(device, "cannot watch the device's asynchronous events: {error}");
            return;
        }
    };
    loop {
        descriptor.readable().await;
        let listener = Arc::clone(&listener);
        if !handle.blocking(move || listener.read()).await {
            handle.sleep(FALSE_ALARM).await;
        }
    }
}

impl Listener {
    /// Reads one event and notifies the connections; false when there was none. Blocks: it queries the device's port
    /// and addresses, and each queue pair that is moved to ERROR is a command.
    fn read(&self) -> bool {
        let mut found = false;
        while let Some(event) = self.device.poll_event() {
            found = true;
            self.note(event).notify();
        }
        found
    }

    /// Records the device's health after `event`; returns the connections that may be affected.
    fn note(&self, event: DeviceEvent) -> AffectedConnections {
        let device = &self.device.attributes().name;
        match event {
            DeviceEvent::PortDown | DeviceEvent::CompletionQueueFatal | DeviceEvent::DeviceFatal => {
                report!(warn, DeviceEvent, device = device, "device event: {event}");
            }
            _ => report!(info, DeviceEvent, device = device, "device event: {event}"),
        }
        let mut state = self.lock();
        *state.counts.entry(event.kind()).or_default() += 1;
        state.health = after(state.health, event);
        AffectedConnections { event, connections: state.connections.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections that an event may affect.
struct AffectedConnections {
    event: DeviceEvent,
    connections: Vec<Weak<Connection>>,
}

impl AffectedConnections {
    /// Notifies them.
    fn notify(self) {
        for connection in self.connections.iter().filter_map(Weak::upgrade) {
            connection.device_event(self.event);
        }
    }
}

/// The health of a device after an event. A lost device stays lost.
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
    /// Moves the lanes that `event` affects to ERROR, and wakes the recovery, which queries the port itself.
    fn device_event(&self, event: DeviceEvent) {
        let reason = event.to_string();
        for (_, lane) in self.all_lanes() {
            lane.worker.with_state(|state| state.notice_broken(lane.key, &reason));
        }
        self.wakeup.wake();
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
