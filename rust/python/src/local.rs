//! The memory of this process that a transfer moves, as Python names it.

use std::sync::Arc;

use flagcx_p2p::RegionId;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::errors::refused;
use crate::region::{Region, RegionSlice};
use crate::shared::Shared;

/// A range of a region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local {
    pub(crate) address: u64,
    pub(crate) size: u64,
    pub(crate) region: RegionId,
}

impl Local {
    /// `size` bytes of a region, or of a slice of one, from `offset` on; to its end without a `size`.
    pub(crate) fn of(
        object: &Bound<'_, PyAny>,
        shared: &Arc<Shared>,
        offset: u64,
        size: Option<u64>,
    ) -> PyResult<Self> {
        if let Ok(region) = object.cast::<Region>() {
            let region = region.get();
            return Self::within(region, shared, (region.start(), region.len()), offset, size);
        }
        if let Ok(slice) = object.cast::<RegionSlice>() {
            let slice = slice.get();
            let region = slice.region.get();
            return Self::within(region, shared, (region.start() + slice.offset, slice.size), offset, size);
        }
        Err(PyTypeError::new_err(format!(
            "expected a Region or a slice of one, got {}: register the memory first (Engine.register)",
            object.get_type().name()?
        )))
    }

    fn within(
        region: &Region,
        shared: &Arc<Shared>,
        (start, length): (u64, u64),
        offset: u64,
        size: Option<u64>,
    ) -> PyResult<Self> {
        if !Arc::ptr_eq(region.shared(), shared) {
            return Err(PyValueError::new_err(format!(
                "the region at {:#x} is registered with another engine than the connection's",
                region.start()
            )));
        }
        if region.is_closed() && !shared.is_closed() {
            return Err(refused(format!(
                "the region at {:#x} has been closed: register the memory again",
                region.start()
            )));
        }
        let left = length.checked_sub(offset);
        let size = size.or(left).unwrap_or_default();
        if left.is_none_or(|left| size > left) {
            return Err(PyValueError::new_err(format!(
                "{size} bytes from offset {offset} on are not inside the {length} bytes at {start:#x}"
            )));
        }
        Ok(Self { address: start + offset, size, region: region.id() })
    }
}
