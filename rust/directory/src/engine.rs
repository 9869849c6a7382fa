//! Names for engines.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flagcx_p2p::{Connection, Engine, EngineError};

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
    /// looked up once more, and a new record is followed. `deadline` bounds the look-ups and the probe of the address, which
    /// takes at most a second; the connection itself is bounded by `FLAGCX_P2P_CONNECT_TIMEOUT_MS` and
    /// `FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS` as in [`Engine::session`].
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
        let look_up = || {
            directory.look_up(&name, deadline)?.ok_or_else(|| Error::NotPublished {
                name: name.to_string(),
                directory: directory.describe(),
            })
        };
        let first = look_up()?;
        match connect_record(self, &name, &first, deadline) {
            Err(error) => {
                let second = look_up()?;
                if second == first { Err(error) } else { connect_record(self, &name, &second, deadline) }
            }
            connected => connected,
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
    if let Some(cached) = engine.cached_session(address).filter(|cached| is_of(cached).is_ok()) {
        return Ok(cached);
    }
    // A connect waits for a peer that starts; a published one has.
    reach(address, deadline).map_err(gone)?;
    let connection = engine.session(address)?;
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

/// The name of this host; empty if it cannot be read.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().chars().filter(|character| !character.is_control()).collect()
}

/// Enough for a probe of the old address and several servers.
const PUBLISH_LIMIT: Duration = Duration::from_secs(10);
