//! Name resolution in threads of its own: a resolver that hangs blocks its thread, and callers only until their
//! deadline.

mod error;
mod system;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::Abort;
use super::host;
use crate::events::{Interest, Notifier, Waiter, run_blocking};
use crate::fork::PerProcess;

pub use error::ResolveError;

/// The addresses of `host`, in the order in which they should be tried. Numeric addresses are never looked up and
/// never wait. Names are looked up by the system's resolver, which may wait for name servers; the call ends by
/// `deadline` or with `abort` all the same. From any thread.
pub fn resolve(
    host: &str,
    port: u16,
    deadline: Instant,
    abort: Option<&Abort>,
) -> Result<Vec<SocketAddr>, ResolveError> {
    static OF_THE_PROCESS: PerProcess<Resolver> = PerProcess::new(|| Resolver::new(system::look_up));
    if let Some(address) = host::numeric(host, port)? {
        return Ok(vec![address]);
    }
    OF_THE_PROCESS.get().resolve(host, port, deadline, abort)
}

/// Resolves names, each once at a time. Callers of one name share its look-up, also one that was already hanging.
/// Answers are not cached.
struct Resolver(Arc<Shared>);

struct Shared {
    look_up: Box<LookUp>,
    state: Mutex<State>,
}

/// The addresses of a name, with port 0; an error says why there are none.
type LookUp = dyn Fn(&str) -> Result<Vec<SocketAddr>, String> + Send + Sync;

#[derive(Default)]
struct State {
    /// The process of this state: a forked child has none of its parent's threads.
    process: u32,
    threads: usize,
    /// Names with a look-up under way, or that wait for a thread.
    names: HashMap<String, Name>,
    /// Names that wait for a thread, oldest first.
    waiting: VecDeque<String>,
}

struct Name {
    look_up: Arc<PendingLookUp>,
    callers: usize,
}

/// One look-up of one name.
struct PendingLookUp {
    name: String,
    /// When its thread began; empty while it waits for one.
    begun: OnceLock<Instant>,
    answer: OnceLock<Result<Vec<SocketAddr>, String>>,
    /// Readable once there is an answer.
    answered: Notifier,
}

impl Resolver {
    fn new(look_up: impl Fn(&str) -> Result<Vec<SocketAddr>, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { look_up: Box::new(look_up), state: Mutex::default() }))
    }

    /// As [`resolve()`], for a name.
    fn resolve(
        &self,
        name: &str,
        port: u16,
        deadline: Instant,
        abort: Option<&Abort>,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let came = Instant::now();
        if name.len() > LONGEST_NAME {
            return Err(ResolveError::TooLong { length: name.len(), limit: LONGEST_NAME });
        }
        let failed =
            |reason: String| ResolveError::Failed { name: name.to_owned(), reason, waited: came.elapsed() };
        let look_up = self.join(name).map_err(failed)?;
        let waited = run_blocking(Waiter::blocking(abort).ready(
            look_up.answered.as_fd(),
            Interest::Read,
            Some(deadline),
        ));
        self.release(&look_up);
        match (look_up.answer.get(), waited) {
            (Some(Ok(addresses)), _) if addresses.is_empty() => Err(failed("it has no address".to_owned())),
            (Some(Ok(addresses)), _) => Ok(with_port(addresses, port)),
            (Some(Err(reason)), _) => Err(failed(reason.clone())),
            (None, Err(error)) if error.kind() == std::io::ErrorKind::TimedOut => {
                let (name, waited) = (name.to_owned(), came.elapsed());
                Err(match look_up.begun.get() {
                    Some(begun) => ResolveError::Silent { name, waited, running: begun.elapsed() },
                    None => ResolveError::Busy { name, waited, limit: MAX_THREADS },
                })
            }
            (None, Err(error)) if error.kind() == std::io::ErrorKind::ConnectionAborted => {
                Err(ResolveError::Aborted)
            }
            (None, Err(error)) => Err(failed(error.to_string())),
            (None, Ok(())) => Err(failed("its look-up ended without an answer".to_owned())),
        }
    }

    /// Joins the look-up of `name`, or begins one.
    fn join(&self, name: &str) -> Result<Arc<PendingLookUp>, String> {
        let mut state = self.0.lock();
        if let Some(known) = state.names.get_mut(name) {
            known.callers += 1;
            return Ok(Arc::clone(&known.look_up));
        }
        let look_up = PendingLookUp::new(name).map_err(|error| format!("cannot open an eventfd: {error}"))?;
        if state.threads < MAX_THREADS {
            self.start(&look_up).map_err(|error| format!("cannot start a thread: {error}"))?;
            state.threads += 1;
        } else {
            state.waiting.push_back(name.to_owned());
        }
        state.names.insert(name.to_owned(), Name { look_up: Arc::clone(&look_up), callers: 1 });
        Ok(look_up)
    }

    /// The caller waits no longer. A look-up that has no callers left is not started.
    fn release(&self, look_up: &Arc<PendingLookUp>) {
        let mut state = self.0.lock();
        let Some(known) = state.names.get_mut(&look_up.name) else { return };
        if !Arc::ptr_eq(&known.look_up, look_up) {
            return;
        }
        known.callers -= 1;
        if known.callers == 0 && look_up.begun.get().is_none() {
            state.names.remove(&look_up.name);
            state.waiting.retain(|name| *name != look_up.name);
        }
    }

    /// The thread is never joined, so a hanging one delays neither a caller nor the end of the process.
    fn start(&self, look_up: &Arc<PendingLookUp>) -> std::io::Result<()> {
        look_up.begin();
        let (shared, first) = (Arc::clone(&self.0), Arc::clone(look_up));
        std::thread::Builder::new().name("p2p-resolve".to_owned()).stack_size(STACK).spawn(move || {
            let mut next = Some(first);
            while let Some(look_up) = next {
                let answer = (shared.look_up)(&look_up.name);
                next = shared.finish(&look_up, answer);
            }
        })?;
        Ok(())
    }
}

impl Shared {
    /// Locks; in a forked child, resets the state first.
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let process = std::process::id();
        if state.process != process {
            *state = State { process, ..State::default() };
        }
        state
    }

    /// Wakes the callers, and takes the next name for the thread.
    fn finish(
        &self,
        look_up: &PendingLookUp,
        answer: Result<Vec<SocketAddr>, String>,
    ) -> Option<Arc<PendingLookUp>> {
        let mut state = self.lock();
        state.names.remove(&look_up.name);
        let _ = look_up.answer.set(answer);
        // Cannot fail: the eventfd's counter was 0.
        look_up.answered.notify();
        let next = state.waiting.pop_front().and_then(|name| state.names.get(&name));
        let next = next.map(|next| Arc::clone(&next.look_up));
        match &next {
            Some(next) => next.begin(),
            None => state.threads -= 1,
        }
        next
    }
}

impl PendingLookUp {
    fn new(name: &str) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            name: name.to_owned(),
            begun: OnceLock::new(),
            answer: OnceLock::new(),
            answered: Notifier::new()?,
        }))
    }

    fn begin(&self) {
        let _ = self.begun.set(Instant::now());
    }
}

/// Each address once, and at most [`MAX_ADDRESSES`].
fn with_port(addresses: &[SocketAddr], port: u16) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for &(mut address) in addresses {
        address.set_port(port);
        if !all.contains(&address) && all.len() < MAX_ADDRESSES {
            all.push(address);
        }
    }
    all
}

/// Names that are looked up at a time.
const MAX_THREADS: usize = 16;
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 64;
/// `NI_MAXHOST`, which includes the end of the string: no longer name can be looked up.
const LONGEST_NAME: usize = 1024;
/// For one getaddrinfo with its modules. glibc's own ones take a few tens of KiB; others, for directories, more.
const STACK: usize = 256 << 10;

#[cfg(test)]
mod tests;
