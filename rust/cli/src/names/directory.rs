//! The directory that the command line or the configuration names, as the tool uses it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::Engine;
use flagcx_p2p::internals::config::{self, Hidden};
use flagcx_p2p_directory::{
    Directory, EngineDirectory, Error, FILE_SERVER, Lease, Name, Record, VARIABLE, nearby, open as open_url,
};

use crate::error::{CliError, Problem, Result, While};
use crate::output;

/// Longest wait for a directory: enough for several servers of it, of which some do not answer.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// What `serve` is to publish.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublishOptions {
    /// Its name; `None` publishes nothing.
    pub(crate) name: Option<String>,
    /// The URL of `--directory`, which may have a password in it.
    pub(crate) directory: Option<Hidden>,
}

/// A published name, withdrawn when this is dropped.
#[derive(Debug)]
pub(crate) struct Published {
    lease: Lease,
    directory: Arc<dyn Directory>,
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "as {} in {}", self.lease.name(), self.directory.describe())
    }
}

pub(super) fn is_name(text: &str) -> bool {
    Name::new(text).is_ok()
}

/// The URL of the directory: that of the command line, else that of the configuration.
pub(super) fn url(given: Option<&str>) -> Result<String> {
    let configured = config::global().directory.as_ref().map(Hidden::reveal);
    given.or(configured).map(str::to_owned).ok_or_else(|| {
        CliError::usage(format!("no directory is known: give --directory URL, or set {VARIABLE}"))
    })
}

/// Opens the directory of this URL, or of the configuration.
pub(super) fn open(given: Option<&str>) -> Result<Arc<dyn Directory>> {
    open_url(&url(given)?).map_err(of)
}

/// The address that `name` is published with by a `serve`.
pub(super) fn look_up(given: Option<&str>, name: &str) -> Result<String> {
    let (directory, name) = (open(given)?, Name::new(name).map_err(of)?);
    let record = find(&*directory, &name, Instant::now() + LIMIT)?;
    match record.kind.as_str() {
        FILE_SERVER | "" => Ok(record.address),
        kind => Err(CliError::other(format!(
            "{name} in {} is an engine of kind \"{}\" at {}, not a `flagcx-p2p serve`: it has no files",
            directory.describe(),
            kind.escape_debug(),
            record.address.escape_debug()
        ))),
    }
}

/// What is published under `name`, in words, and the address.
pub(crate) fn record_of(given: Option<&str>, name: &str, deadline: Instant) -> Result<(String, String)> {
    let (directory, name) = (open(given)?, Name::new(name).map_err(of)?);
    let started = Instant::now();
    let record = find(&*directory, &name, deadline)?;
    let took = started.elapsed();
    let kind = if record.kind.is_empty() { "an engine" } else { record.kind.as_str() };
    let of = if record.host.is_empty() {
        String::new()
    } else {
        format!(", process {} of {}", record.pid, record.host)
    };
    let text = format!(
        "{} at {}{of}, in {} (looked up in {:.1} ms)",
        kind.escape_debug(),
        record.address.escape_debug(),
        directory.describe(),
        took.as_secs_f64() * 1e3
    );
    Ok((text, record.address))
}

/// What is published under a name; an error with the names that may be meant where there is nothing.
fn find(directory: &dyn Directory, name: &Name, deadline: Instant) -> Result<Record> {
    let found = directory.look_up(name, deadline).map_err(of).doing(|| format!("look up {name}"))?;
    found.ok_or_else(|| {
        let nearby = nearby(directory, name, deadline);
        CliError::other(format!("{} has no name {name}; {nearby}", directory.describe()))
    })
}

/// Says where a name led to, in an error about that place.
pub(super) fn where_it_led(error: CliError, name: &str, address: &str) -> CliError {
    let led: Result<()> = Err(error);
    led.doing(|| format!("{name} is published at {address}")).err().unwrap_or_else(|| CliError::other(""))
}

/// Publishes a server that listens at `bound`, if that is asked for.
pub(crate) fn publish(
    options: &PublishOptions,
    engine: &Arc<Engine>,
    bound: SocketAddr,
) -> Result<Option<Published>> {
    let Some(name) = &options.name else { return Ok(None) };
    let (directory, name) =
        (open(options.directory.as_ref().map(Hidden::reveal))?, Name::new(name).map_err(of)?);
    let address = announced(engine, bound);
    if address.ip().is_loopback() {
        output::remark(&format!(
            "{name} is published with {address}, which only this machine reaches; --listen IP opens another address"
        ));
    }
    let record = Record { address: address.to_string(), ..engine.record(FILE_SERVER).map_err(of)? };
    let lease = directory.publish(&name, &record, Instant::now() + LIMIT).map_err(of)?;
    Ok(Some(Published { lease, directory }))
}

/// Where peers reach a server that listens at `bound`: at the address that the engine announces, where that is another.
fn announced(engine: &Engine, bound: SocketAddr) -> SocketAddr {
    let advertised = config::global().advertise.is_some();
    if bound.ip().is_unspecified() || advertised {
        SocketAddr::new(engine.address(), bound.port())
    } else {
        bound
    }
}

/// A mistake on the command line, or a failure.
pub(super) fn of(error: Error) -> CliError {
    match error {
        Error::Url { .. } | Error::Name { .. } => CliError::usage(error.to_string()),
        error => Problem::Other(error.to_string()).into(),
    }
}
