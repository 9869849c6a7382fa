//! In place of `directory`, in a tool that was built without it: no text is a name.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use flagcx_p2p::Engine;

use crate::error::{CliError, Result};

/// Nothing is published.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublishOptions;

/// Nothing can be.
#[derive(Debug)]
pub(crate) enum Published {}

impl fmt::Display for Published {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

pub(super) fn is_name(_: &str) -> bool {
    false
}

pub(super) fn url(_: Option<&str>) -> Result<String> {
    Err(CliError::usage("this program was built without its feature `directory`"))
}

pub(super) fn look_up(directory: Option<&str>, _: &str) -> Result<String> {
    url(directory)
}

pub(crate) fn record_of(directory: Option<&str>, _: &str, _: Instant) -> Result<(String, String)> {
    Err(url(directory).err().unwrap_or_else(|| CliError::usage("no directory")))
}

pub(super) fn where_it_led(error: CliError, _: &str, _: &str) -> CliError {
    error
}

pub(crate) fn publish(_: &PublishOptions, _: &Arc<Engine>, _: SocketAddr) -> Result<Option<Published>> {
    Ok(None)
}
