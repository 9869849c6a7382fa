//! In place of `names`, in a package that was built without its feature `directory`: engines know addresses alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use flagcx_p2p::{Config, Connection, Engine};
use pyo3::prelude::*;

use crate::errors::refused;
use crate::peer::Peer;

/// Nothing.
#[derive(Debug)]
pub(crate) struct Names;

impl Names {
    pub(crate) fn new(url: Option<&str>, _: &Config) -> PyResult<Self> {
        if url.is_some() { Err(missing()) } else { Ok(Self) }
    }

    pub(crate) fn publish(&self, _: Python<'_>, _: &Arc<Engine>, _: &str) -> PyResult<()> {
        Err(missing())
    }

    pub(crate) fn withdraw(&self, _: Python<'_>, _: &str) -> PyResult<()> {
        Ok(())
    }

    pub(crate) fn published(&self, _: Python<'_>) -> BTreeMap<String, bool> {
        BTreeMap::new()
    }

    pub(crate) fn connect(
        &self,
        _: Python<'_>,
        _: &Arc<Engine>,
        _: &str,
    ) -> PyResult<Result<Arc<Connection>, PyErr>> {
        Err(missing())
    }

    pub(crate) fn peers(&self, _: Python<'_>, _: String) -> PyResult<Vec<Peer>> {
        Err(missing())
    }

    pub(crate) fn close(&self) {}
}

fn missing() -> PyErr {
    refused("this package was built without directories of names: build it with its default features")
}
