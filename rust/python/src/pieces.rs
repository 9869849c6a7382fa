//! The pieces of a transfer, as Python names them.

use std::sync::Arc;

use flagcx_p2p::internals::memory::RemoteRegion;
use flagcx_p2p::{Connection as CoreConnection, Iov, RegionId, RemoteRange};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::asking;
use crate::column::Column;
use crate::errors::refused;
use crate::local::Local;
use crate::number::Number;
use crate::shared::Shared;

/// Finds the peer's keys: neighbours most often lie in the same region.
#[derive(Debug)]
pub(crate) struct RemoteKeys<'a> {
    connection: &'a CoreConnection,
    last: Option<RemoteRegion>,
}

impl<'a> RemoteKeys<'a> {
    pub(crate) fn new(connection: &'a CoreConnection) -> Self {
        Self { connection, last: None }
    }

    /// The range of the peer, with its key. Asks the peer, for at most a second, if it has announced none that holds it.
    pub(crate) fn find(&mut self, py: Python<'_>, address: u64, length: u64) -> PyResult<RemoteRange> {
        let size = u32::try_from(length).unwrap_or(u32::MAX);
        if let Some(last) = self.last.filter(|last| holds(last, address, length)) {
            return Ok(RemoteRange { address, size, rkey: last.rkey });
        }
        let found = self.connection.known_region(address, length).or_else(|| {
            let may_ask = asking::is_allowed();
            may_ask.then(|| py.detach(|| self.connection.remote_region(address, length))).flatten()
        });
        let Some(region) = found else {
            return Err(refused(self.not_found(address, length)));
        };
        self.last = Some(region);
        Ok(RemoteRange { address, size, rkey: region.rkey })
    }

    #[cold]
    fn not_found(&self, address: u64, length: u64) -> String {
        if let Err(forked) = self.connection.here() {
            return forked.to_string();
        }
        let peer = self.connection.peer().control;
        if !self.connection.is_usable() {
            return format!("the connection with {peer} has ended: connect again (Engine.connect)");
        }
        format!(
            "the peer {peer} has announced no region that holds {address:#x}+{length}: register that memory there, and do not close \
             the region before the transfer has ended"
        )
    }
}

fn holds(region: &RemoteRegion, address: u64, length: u64) -> bool {
    address >= region.base
        && region.size.checked_sub(address - region.base).is_some_and(|left| length <= left)
}

/// The pieces of a call: a sequence of `Piece`, or three columns.
pub(crate) fn of_call(
    connection: &CoreConnection,
    shared: &Arc<Shared>,
    local: &Bound<'_, PyAny>,
    columns: (Option<&Bound<'_, PyAny>>, Option<&Bound<'_, PyAny>>),
) -> PyResult<Vec<Iov>> {
    match columns {
        (None, None) => of_sequence(connection, shared, local),
        (Some(remote), Some(length)) => of_columns(connection, local, remote, length),
        _ => Err(PyTypeError::new_err(
            "expected a sequence of Piece alone, or three columns: local addresses, remote addresses and lengths",
        )),
    }
}

/// Of `Piece` tuples: region, remote address, offset, size.
fn of_sequence(
    connection: &CoreConnection,
    shared: &Arc<Shared>,
    pieces: &Bound<'_, PyAny>,
) -> PyResult<Vec<Iov>> {
    let (py, mut keys) = (pieces.py(), RemoteKeys::new(connection));
    let mut iovs = Vec::with_capacity(pieces.len().unwrap_or_default());
    for (index, piece) in pieces.try_iter().map_err(|_| no_piece(pieces))?.enumerate() {
        let piece = piece?;
        let iov = of_piece(&piece, shared, &mut keys).map_err(|error| at_piece(py, index, &error))?;
        iovs.push(iov);
    }
    Ok(iovs)
}

fn of_piece(piece: &Bound<'_, PyAny>, shared: &Arc<Shared>, keys: &mut RemoteKeys<'_>) -> PyResult<Iov> {
    let fields = piece.cast::<PyTuple>().map_err(|_| no_piece(piece))?;
    let (count, number) =
        (fields.len(), |index| -> PyResult<u64> { Ok(fields.get_item(index)?.extract::<Number>()?.0) });
    if !(2..=4).contains(&count) {
        return Err(no_piece(piece));
    }
    let remote = number(1)?;
    let offset = if count > 2 { number(2)? } else { 0 };
    let size = if count > 3 { fields.get_item(3)?.extract::<Option<Number>>()? } else { None };
    let local = Local::of(&fields.get_item(0)?, shared, offset, size.map(|size| size.0))?;
    let remote = keys.find(piece.py(), remote, local.size)?;
    Ok(Iov { local: local.address, length: local.size, region: Some(local.region), remote })
}

#[cold]
fn no_piece(object: &Bound<'_, PyAny>) -> PyErr {
    let class =
        object.get_type().name().map_or_else(|_| "another object".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!(
        "expected Piece(region, remote_address, offset, size) in a sequence of them, got {class}"
    ))
}

/// Names the piece in an error of it.
fn at_piece(py: Python<'_>, index: usize, error: &PyErr) -> PyErr {
    PyErr::from_type(error.get_type(py), format!("piece {index}: {}", error.value(py)))
}

/// Of three columns of equal length.
fn of_columns(
    connection: &CoreConnection,
    local: &Bound<'_, PyAny>,
    remote: &Bound<'_, PyAny>,
    length: &Bound<'_, PyAny>,
) -> PyResult<Vec<Iov>> {
    let (py, mut keys) = (local.py(), RemoteKeys::new(connection));
    let local = Column::of(local, "local")?;
    let remote = Column::of(remote, "remote")?;
    let length = Column::of(length, "length")?;
    let count = local.len().or(remote.len()).or(length.len()).unwrap_or(1);
    for (column, name) in [(&local, "local"), (&remote, "remote"), (&length, "length")] {
        if column.len().is_some_and(|len| len != count) {
            return Err(PyValueError::new_err(format!(
                "{name} has {} elements where {count} were expected: the columns name the same pieces",
                column.len().unwrap_or_default()
            )));
        }
    }
    let mut iovs = Vec::with_capacity(count);
    for index in 0..count {
        let (Some(local), Some(remote), Some(length)) = (local.at(index), remote.at(index), length.at(index))
        else {
            break;
        };
        let remote = keys.find(py, remote, length).map_err(|error| at_piece(py, index, &error))?;
        iovs.push(Iov { local, length, region: None::<RegionId>, remote });
    }
    Ok(iovs)
}
