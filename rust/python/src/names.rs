//! The names of an engine: its directory, what it has published there, and peers by name.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::config::Hidden;
use flagcx_p2p::{Config, Connection, Engine};
use flagcx_p2p_directory::{
    Directory, EngineDirectory, Error, FILE_SERVER, Lease, Name, Record, nearby, open,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::{name_in_use, not_published, refused};
use crate::peer::Peer;
use crate::waiting::on_thread;

/// The `kind` of the records of this package.
const KIND: &str = "python";

/// An engine's directory, and the names that it holds.
#[derive(Debug)]
pub(crate) struct Names {
    /// None from the start, or once the engine is closed.
    directory: Mutex<Option<Arc<dyn Directory>>>,
    /// How long a call may wait for the directory: as long as for a peer.
    limit: Duration,
    held: Arc<Mutex<Held>>,
}

/// The names that an engine holds; `None` for one that is being published.
#[derive(Debug, Default)]
struct Held {
    leases: BTreeMap<String, Option<Lease>>,
    /// Nothing is published any more.
    closed: bool,
}

impl Names {
    /// Of the directory with this URL, else of the configuration's. Nothing is connected to yet.
    pub(crate) fn new(url: Option<&str>, config: &Config) -> PyResult<Self> {
        let url = url.or_else(|| config.directory.as_ref().map(Hidden::reveal));
        let directory = url.map(open).transpose().map_err(raised)?;
        Ok(Self { directory: Mutex::new(directory), limit: config.connect_timeout, held: Arc::default() })
    }

    /// Publishes `engine`; nothing if it has that name already.
    pub(crate) fn publish(&self, py: Python<'_>, engine: &Arc<Engine>, name: &str) -> PyResult<()> {
        let (directory, name) =
            (self.directory(&format!("cannot publish {name:?}"))?, Name::new(name).map_err(raised)?);
        let reserved = py.detach(|| reserve(&self.held, &name))?;
        if !reserved {
            return Ok(());
        }
        let (held, of_thread, deadline) = (Arc::clone(&self.held), Arc::clone(engine), self.deadline());
        let reservation = Reservation { held: Arc::clone(&held), name: name.as_str().to_owned() };
        // Where an exception leaves this thread, the name is withdrawn with the answer that nothing takes.
        let published = on_thread(py, "p2p-publish", move || {
            let reservation = reservation;
            let record = of_thread.record(KIND)?;
            directory.publish(&name, &record, deadline).map(|lease| (lease, reservation))
        })?;
        let (lease, reservation) = published.map_err(raised)?;
        py.detach(|| reservation.keep(lease))
    }

    /// Gives a name up; nothing if it is not held. An exception that ends the wait leaves the withdrawal under way.
    pub(crate) fn withdraw(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        let deadline = self.deadline();
        let lease = py.detach(|| match lock(&self.held).leases.entry(name.to_owned()) {
            Entry::Occupied(entry) if entry.get().is_some() => entry.remove(),
            _ => None,
        });
        let Some(lease) = lease else { return Ok(()) };
        on_thread(py, "p2p-withdraw", move || lease.withdraw(deadline))?.map_err(raised)
    }

    /// The names that are published, and whether each is held now.
    pub(crate) fn published(&self, py: Python<'_>) -> BTreeMap<String, bool> {
        py.detach(|| {
            let held = lock(&self.held);
            let leases = held.leases.iter().filter_map(|(name, lease)| Some((name, lease.as_ref()?)));
            leases.map(|(name, lease)| (name.clone(), !lease.lost())).collect()
        })
    }

    /// The connection to the peer that has published `name`.
    pub(crate) fn connect(
        &self,
        py: Python<'_>,
        engine: &Arc<Engine>,
        name: &str,
    ) -> PyResult<Result<Arc<Connection>, PyErr>> {
        let attempted = format!("{name:?}: expected host:port, or a name in a directory");
        let (directory, name) = (self.directory(&attempted)?, Name::new(name).map_err(raised)?);
        let (engine, deadline) = (Arc::clone(engine), self.deadline());
        let (connected, hint) = on_thread(py, "p2p-connect", move || {
            let connected = engine.connect_name(name.as_str(), &*directory, deadline);
            let hint = match connected {
                Err(Error::NotPublished { .. }) => nearby(&*directory, &name, deadline),
                Err(Error::Engine(_)) if is_file_server(&*directory, &name, deadline) => {
                    format!("{name} is a `flagcx-p2p serve`, which moves files and is no peer for memory")
                }
                _ => String::new(),
            };
            (connected, hint)
        })?;
        Ok(connected.map_err(|error| match error {
            Error::NotPublished { .. } => not_published(format!("{error}; {hint}")),
            error if !hint.is_empty() => refused(format!("{error}; {hint}")),
            error => raised(error),
        }))
    }

    /// What is published under names that begin with `prefix`.
    pub(crate) fn peers(&self, py: Python<'_>, prefix: String) -> PyResult<Vec<Peer>> {
        let (directory, deadline) = (self.directory("cannot list peers")?, self.deadline());
        let found = on_thread(py, "p2p-peers", move || directory.list(&prefix, deadline))?;
        Ok(found.map_err(raised)?.into_iter().map(|(name, record)| peer(&name, record)).collect())
    }

    /// Withdraws all names, publishes none any more, and closes the directory. Takes at most 2 s for all names together; closing takes
    /// 2 s more if the directory stops to answer just then, and no time if it has not answered before. Without the interpreter's lock.
    pub(crate) fn close(&self) {
        let leases = {
            let mut held = lock(&self.held);
            held.closed = true;
            mem::take(&mut held.leases)
        };
        let deadline = Instant::now() + CLOSE_LIMIT;
        let failed = leases.into_values().flatten().filter_map(|lease| lease.withdraw(deadline).err());
        let failed: Vec<_> = failed.collect();
        if let Some(error) = failed.first() {
            tracing::warn!(names = failed.len(), %error, "not withdrawn: they vanish with the time of their lease at the latest");
        }
        let directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Not while the lock is held: it may wait for the servers.
        drop(directory);
    }

    fn directory(&self, attempted: &str) -> PyResult<Arc<dyn Directory>> {
        let directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner).clone();
        directory.ok_or_else(|| {
            if lock(&self.held).closed {
                return refused("the engine is closed");
            }
            refused(format!(
                "{attempted}; the engine has no directory: give Engine(directory=...) or FLAGCX_P2P_DIRECTORY"
            ))
        })
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.limit
    }
}

/// The end of an engine waits so long for the withdrawal of all its names.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// A name that a thread is publishing. Dropping it gives the name up.
#[derive(Debug)]
struct Reservation {
    held: Arc<Mutex<Held>>,
    name: String,
}

impl Reservation {
    fn keep(self, lease: Lease) -> PyResult<()> {
        let mut held = lock(&self.held);
        if held.closed {
            // Withdrawn after the lock is released, which takes a moment.
            drop(held);
            drop(lease);
            return Err(refused("the engine is closed"));
        }
        held.leases.insert(self.name.clone(), Some(lease));
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        if held.leases.get(&self.name).is_some_and(Option::is_none) {
            held.leases.remove(&self.name);
        }
    }
}

/// Notes that `name` is being published; false if it is held already.
fn reserve(held: &Mutex<Held>, name: &Name) -> PyResult<bool> {
    let mut held = lock(held);
    if held.closed {
        return Err(refused("the engine is closed"));
    }
    match held.leases.entry(name.as_str().to_owned()) {
        Entry::Vacant(entry) => {
            entry.insert(None);
            Ok(true)
        }
        Entry::Occupied(entry) if entry.get().is_some() => Ok(false),
        Entry::Occupied(_) => Err(refused(format!("{name} is being published by another thread"))),
    }
}

fn is_file_server(directory: &dyn Directory, name: &Name, deadline: Instant) -> bool {
    matches!(directory.look_up(name, deadline), Ok(Some(record)) if record.kind == FILE_SERVER)
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn peer(name: &Name, record: Record) -> Peer {
    Peer {
        name: name.as_str().to_owned(),
        address: record.address,
        kind: record.kind,
        version: record.version,
        host: record.host,
        pid: record.pid,
        since: Duration::from_millis(record.started_at).as_secs_f64(),
    }
}

/// What Python raises for an error of a directory.
fn raised(error: Error) -> PyErr {
    match error {
        Error::Url { .. } | Error::Name { .. } => PyValueError::new_err(error.to_string()),
        Error::NameInUse { .. } => name_in_use(error),
        Error::NotPublished { .. } => not_published(error),
        error => refused(error),
    }
}
