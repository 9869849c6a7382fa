//! Names in etcd, version 3.4 or later, over its JSON gateway.
//!
//! ```text
//!  Etcd ── publish ──▶ Keeper ─ thread: one lease for all names of the directory
//!    │                   │
//!    └── look up, list ──┴──▶ Client ─ token, endpoints in turn ─▶ gateway ◀─ one streamed answer ── Watching ─ thread
//! ```
//!
//! A name is the key `/PREFIX/NAME`; its value is the record as JSON. Keys and values travel in base64, numbers of 64 bits as text.

mod answer;
mod auth;
mod busy;
mod client;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod client_tests;
mod endpoints;
mod http;
mod keeper;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod keeper_tests;
mod keys;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod played;
mod published;
mod secret;
mod settings;
mod store;
mod takeover;
mod wait;
mod watch_line;
mod watching;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod watching_tests;

use std::sync::Arc;
use std::time::Instant;

use flagcx_p2p::internals::fork::OfProcess;

use crate::static_list::Names;
use crate::{Directory, Error, Lease, Name, Record, Watch};
use client::Client;
use keeper::Keeper;
use keys::Keys;
use published::Published;
pub(crate) use secret::Secret;
pub(crate) use settings::{Settings, User};
use store::Store;

/// A directory in etcd.
#[derive(Debug)]
pub(crate) struct Etcd {
    described: String,
    /// The sockets and the thread are of the process that opened it.
    keeper: Arc<OfProcess<Keeper>>,
}

impl Etcd {
    /// Reads the certificates; connects to nothing.
    pub(crate) fn new(settings: Settings) -> Result<Self, Error> {
        let described = settings.describe();
        let keys = Keys::new(&settings.prefix);
        let ttl = settings.lease;
        let client = Client::new(settings)?;
        let store = Arc::new(Store::new(client, keys));
        Ok(Self { described, keeper: Arc::new(OfProcess::new(Keeper::new(store, ttl))) })
    }

    fn store(&self) -> Result<&Arc<Store>, Error> {
        Ok(OfProcess::here(&self.keeper)?.store())
    }
}

impl Directory for Etcd {
    fn publish(&self, name: &Name, record: &Record, deadline: Instant) -> Result<Lease, Error> {
        let keeper = OfProcess::here(&self.keeper)?;
        let place = keeper.publish(name, record, deadline)?;
        let held = Published::new(Arc::clone(&self.keeper), name.clone(), place);
        // From here on the name is withdrawn if anything fails.
        let lease = Lease::new(name.clone(), Box::new(held));
        keeper::start(&self.keeper)?;
        Ok(lease)
    }

    fn look_up(&self, name: &Name, deadline: Instant) -> Result<Option<Record>, Error> {
        let found = self.store()?.find(name, deadline)?;
        found.map(|stored| Record::decode(name.as_str(), &stored.value)).transpose()
    }

    fn list(&self, prefix: &str, deadline: Instant) -> Result<Vec<(Name, Record)>, Error> {
        let names: Names = self.store()?.list(prefix, deadline)?.names;
        Ok(names.into_iter().collect())
    }

    fn watch(&self, prefix: &str) -> Result<Watch, Error> {
        watching::start(Arc::clone(self.store()?), prefix)
    }

    fn describe(&self) -> String {
        self.described.clone()
    }
}
