//! Names for engines.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flagcx_p2p::internals::control::split_session;
use flagcx_p2p::{Connection, Engine, EngineError};

use crate::deadline::left;
use crate::probe::reach;
use crate::{Directory, Error, Lease, Name, Record};

/// Publishing and connecting by name, for an engine.
pub trait EngineDirectory {
    /// What is to be published of this engine. `kind` says what it is part of, such as `serve`.
    ///
    /// # Errors
    /// [`Error::Engine`] for an engine that cannot be reached: one without a control listener.
    fn record(&self, kind: &str) -> Result<Record, Error>;

    /// Publishes this engine under `name`, for as long as the answer lives. Waits at most 10 s.
    ///
    /// The engine must accept peers, by [`Engine::start_rpc_server`] or [`Engine::accept`]: a silent one keeps its name, but
    /// nothing can connect to it. The answer does not keep the engine open.
    ///
    /// # Errors
    /// [`Error::NameInUse`] and the others of [`Directory::publish`]; [`Error::Name`]; those of [`EngineDirectory::record`].
    fn publish(&self, name: &str, directory: &dyn Directory) -> Result<Lease, Error>;

    /// The connection to the peer that is published under `name`: made at the first call, and again when it has ended.
    ///
    /// The name is looked up each time. When nothing accepts connections at its address, or another engine answers there, it is
    /// looked up once more, and a new record is followed. A connect that has not ended by `deadline` goes on in a thread, for at most
    /// the time that [`Engine::session`] takes, and keeps the engine until then: a later call finds its connection.
    ///
    /// # Errors
    /// [`Error::NotPublished`], [`Error::PeerGone`], [`Error::OtherEngine`]; [`Error::Name`]; those of [`Directory::look_up`], and
    /// [`Error::Engine`] with those of [`Engine::session`].
    fn connect_name(
        &self,
        name: &str,
        directory: &dyn Directory,
        deadline: Instant,
    ) -> Result<Arc<Connection>, Error>;
}

impl EngineDirectory for Arc<Engine> {
    fn record(&self, kind: &str) -> Result<Record, Error> {
        let metadata = self.metadata()?;
        let address = metadata.split('?').next().unwrap_or_default().to_owned();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Record {
            address,
            session: Some(metadata),
            kind: kind.to_owned(),
            engine_id: self.incarnation(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            host: host_name(),
            pid: std::process::id(),
        })
    }

    fn publish(&self, name: &str, directory: &dyn Directory) -> Result<Lease, Error> {
        self.here().map_err(EngineError::from)?;
        directory.publish(&Name::new(name)?, &self.record("library")?, Instant::now() + PUBLISH_LIMIT)
    }

    fn connect_name(
        &self,
        name: &str,
        directory: &dyn Directory,
        deadline: Instant,
    ) -> Result<Arc<Connection>, Error> {
        self.here().map_err(EngineError::from)?;
        let name = Name::new(name)?;
        let not_published =
            || Error::NotPublished { name: name.to_string(), directory: directory.describe() };
        let first = directory.look_up(&name, deadline)?.ok_or_else(not_published)?;
        let error = match connect_record(self, &name, &first, deadline) {
            Err(error) => error,
            connected => return connected,
        };
        match directory.look_up(&name, deadline) {
            Ok(Some(second)) if second != first => connect_record(self, &name, &second, deadline),
            Ok(None) => Err(not_published()),
            // The first error says more.
            Ok(Some(_)) | Err(_) => Err(error),
        }
    }
}

/// The connection to the engine of `record`, and to no other one.
fn connect_record(
    engine: &Arc<Engine>,
    name: &Name,
    record: &Record,
    deadline: Instant,
) -> Result<Arc<Connection>, Error> {
    let address = &record.address;
    let gone = |reason| Error::PeerGone { name: name.to_string(), address: address.clone(), reason };
    let is_of = |connection: &Connection| {
        let found = connection.peer().incarnation;
        if record.engine_id == 0 || found == 0 || found == record.engine_id { Ok(()) } else { Err(found) }
    };
    let cached = engine.cached_session(address);
    if let Some(cached) = cached.as_ref().filter(|cached| is_of(cached).is_ok()) {
        return Ok(Arc::clone(cached));
    }
    // A connect waits for a peer that starts; a published one has.
    reach(address, deadline).map_err(|error| gone(error.into_reason()))?;
    if let Some(former) = cached {
        // Of the former engine at this address, of which the end was not noticed yet; or the record is old.
        let found = connect_by(engine, name, address, deadline, connect_anew)?;
        if is_of(&found).is_ok() {
            former.close();
        }
        found.close();
    }
    let connection = connect_by(engine, name, address, deadline, Engine::session)?;
    match is_of(&connection) {
        Ok(()) => Ok(connection),
        Err(found) => Err(Error::OtherEngine {
            name: name.to_string(),
            address: address.clone(),
            published: record.engine_id,
            found,
        }),
    }
}

/// A way to connect to an address.
type Connect = fn(&Arc<Engine>, &str) -> Result<Arc<Connection>, EngineError>;

/// A connection that [`Engine::session`] does not know.
fn connect_anew(engine: &Arc<Engine>, address: &str) -> Result<Arc<Connection>, EngineError> {
    let (host, port) = split_session(address).map_err(|error| EngineError::Invalid(error.to_string()))?;
    engine.connect(host, port, -1, false)
}

/// `connect`, which has its own limits, by `deadline`.
fn connect_by(
    engine: &Arc<Engine>,
    name: &Name,
    address: &str,
    deadline: Instant,
    connect: Connect,
) -> Result<Arc<Connection>, Error> {
    let begun = Instant::now();
    let (sender, receiver) = sync_channel(1);
    let (connecting, to) = (Arc::clone(engine), address.to_owned());
    let started = thread::Builder::new().name("fp2p-connect".to_owned()).spawn(move || {
        // Nothing may wait for it any more; the connection stays with the engine.
        let _ = sender.send(connect(&connecting, &to));
    });
    started.map_err(|error| Error::System {
        operation: "start a thread that connects",
        reason: error.to_string(),
    })?;
    match receiver.recv_timeout(left(deadline).unwrap_or_default()) {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(Error::Deadline {
            operation: format!("connect to {:?}", name.as_str()),
            time: begun.elapsed(),
            reason: format!("its peer at {address} accepts connections and does not answer"),
        }),
    }
}

/// The name of this host; empty if it cannot be read.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().chars().filter(|character| !character.is_control()).collect()
}

/// Enough for a probe of the old address and several servers.
const PUBLISH_LIMIT: Duration = Duration::from_secs(10);
