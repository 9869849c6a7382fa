//! The one endpoint of a process, open while an engine uses it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::client::Limits;
use super::listener::HttpListener;
use super::server;
use crate::config::{Config, MetricsAddress};
use crate::events::{EventLoop, Task};
use crate::fork::PerProcess;

/// What an engine holds of the endpoint: dropping the last one closes it.
#[derive(Debug)]
pub(crate) struct EndpointUse(());

#[derive(Debug)]
struct Endpoint {
    /// As it was asked for.
    address: MetricsAddress,
    // Dropped in this order.
    _task: Task,
    _events: Arc<EventLoop>,
}

#[derive(Default)]
struct State {
    open: Option<Endpoint>,
    users: usize,
    /// Another address than that of `open` was asked for: the log has a line already.
    has_ignored: bool,
    /// An address that could not be listened at: the log has a line already.
    refused: Option<MetricsAddress>,
}

static STATE: PerProcess<Mutex<State>> = PerProcess::new(Mutex::default);

impl EndpointUse {
    /// Opens the endpoint that `config` asks for, or shares the one that is open, which may be at another address: that is a line in
    /// the log. `None` without one: it was not asked for, or it
    /// cannot be opened, which is a line in the log.
    pub(crate) fn acquire(config: &Config) -> Option<Self> {
        let address = config.metrics.as_ref()?;
        let mut state = lock();
        if let Some(Endpoint { address: open, .. }) = &state.open {
            if open != address && !state.has_ignored {
                tracing::warn!(
                    "FLAGCX_P2P_METRICS={address} has no effect: a process has one metrics endpoint, and that of an earlier engine is \
                     open at {open}. Use one value for all engines of a process"
                );
                state.has_ignored = true;
            }
        } else {
            match Endpoint::open(address, config) {
                Ok(endpoint) => {
                    *state = State { open: Some(endpoint), ..State::default() };
                }
                Err(error) => {
                    if state.refused.as_ref() != Some(address) {
                        tracing::warn!(
                            "no metrics endpoint: cannot listen on FLAGCX_P2P_METRICS={address}: {error}; the engine works \
                             without it. Several processes of a host need a range of ports, or unix: with %p"
                        );
                        state.refused = Some(address.clone());
                    }
                    return None;
                }
            }
        }
        state.users += 1;
        Some(Self(()))
    }
}

impl Drop for EndpointUse {
    fn drop(&mut self) {
        let mut state = lock();
        state.users -= 1;
        if state.users == 0 {
            // Under the lock, so that an engine that opens meanwhile finds the address free. The endpoint's task takes no lock
            // that waits for this one.
            state.open = None;
        }
    }
}

impl Endpoint {
    fn open(address: &MetricsAddress, config: &Config) -> io::Result<Self> {
        let listener = HttpListener::bind(address, config)?;
        let events = EventLoop::acquire()?;
        tracing::info!("metrics endpoint open on {listener}");
        let task = events.spawn(|handle| server::serve(listener, Limits::default(), handle.clone()));
        Ok(Self { address: address.clone(), _task: task, _events: events })
    }
}

fn lock() -> MutexGuard<'static, State> {
    STATE.get().lock().unwrap_or_else(PoisonError::into_inner)
}
