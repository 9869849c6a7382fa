//! The pieces of a transfer, as Python names them.

use std::sync::Arc;

use flagcx_p2p::internals::memory::RemoteRegion;
use flagcx_p2p::{Connection as CoreConnection, Iov, RegionId, RemoteRange};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::engine::Shared;
use crate::errors::refused;
use crate::local::Local;

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
        let found = self
            .connection
            .known_region(address, length)
            .or_else(|| py.detach(|| self.connection.remote_region(address, length)));
        let Some(region) = found else {
            return Err(refused(format!(
                "the peer {} has announced no region that holds {address:#x}+{length}",
                self.connection.peer().control
            )));
        };
        self.last = Some(region);
        Ok(RemoteRange { address, size, rkey: region.rkey })
    }
}

fn holds(region: &RemoteRegion, address: u64, length: u64) -> bool {
    address >= region.base
        && region.size.checked_sub(address - region.base).is_some_and(|left| length <= left)
}

/// The pieces of a call: a sequence of `Piece`, or three columns. Empty ones are left out.
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
            "expected a sequence of Piece, or local addresses, remote addresses and lengths",
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
    let mut iovs = Vec::with_capacity(pieces.len()?);
    for (index, piece) in pieces.try_iter()?.enumerate() {
        let piece = piece?;
        let iov = of_piece(&piece, shared, &mut keys).map_err(|error| at_piece(py, index, &error))?;
        iovs.push(iov);
    }
    Ok(iovs)
}

fn of_piece(piece: &Bound<'_, PyAny>, shared: &Arc<Shared>, keys: &mut RemoteKeys<'_>) -> PyResult<Iov> {
    let piece = piece.cast::<PyTuple>()?;
    let remote = piece.get_item(1)?.extract()?;
    let offset = piece.get_item(2).map_or(Ok(0), |offset| offset.extract())?;
    let size = piece.get_item(3).map_or(Ok(None), |size| size.extract())?;
    let local = Local::of(&piece.get_item(0)?, shared, offset, size)?;
    let remote = keys.find(piece.py(), remote, local.size)?;
    Ok(Iov { local: local.address, length: local.size, region: Some(local.region), remote })
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

/// Whole numbers of 64 bits.
enum Column {
    /// The same for all pieces.
    One(u64),
    Many(Vec<u64>),
}

impl Column {
    /// Of a number, an array of 64-bit integers (numpy, `array.array`), or a sequence of numbers.
    fn of(object: &Bound<'_, PyAny>, name: &str) -> PyResult<Self> {
        if let Ok(number) = object.extract::<u64>() {
            return Ok(Self::One(number));
        }
        if let Ok(buffer) = PyBuffer::<u64>::get(object) {
            return Ok(Self::Many(buffer.to_vec(object.py())?));
        }
        if let Ok(buffer) = PyBuffer::<i64>::get(object) {
            let numbers = buffer.to_vec(object.py())?;
            if let Some(index) = numbers.iter().position(|number| *number < 0) {
                return Err(PyValueError::new_err(format!("{name}[{index}] is negative")));
            }
            return Ok(Self::Many(numbers.into_iter().map(|number| number as u64).collect()));
        }
        if PyBuffer::<u8>::get(object).is_ok() || object.hasattr("dtype")? {
            return Err(PyTypeError::new_err(format!(
                "{name} must be an array of 64-bit integers (numpy.uint64), or a sequence of numbers"
            )));
        }
        object.extract().map(Self::Many)
    }

    fn len(&self) -> Option<usize> {
        match self {
            Self::One(_) => None,
            Self::Many(numbers) => Some(numbers.len()),
        }
    }

    fn at(&self, index: usize) -> Option<u64> {
        match self {
            Self::One(number) => Some(*number),
            Self::Many(numbers) => numbers.get(index).copied(),
        }
    }
}
