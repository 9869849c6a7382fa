//! How elements lie in memory.

use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;

/// Whether elements lie in the order of their indices (C order), without gaps. `strides` in the unit of `element`, the distance of
/// neighbours; none means that they do.
pub(super) fn is_contiguous(shape: &[i64], strides: Option<&[i64]>, element: i64) -> bool {
    let Some(strides) = strides else { return true };
    let mut distance = Some(element);
    strides.len() == shape.len()
        && shape.iter().zip(strides).rev().all(|(&extent, &stride)| {
            let fits = extent == 1 || distance == Some(stride);
            distance = distance.and_then(|distance| distance.checked_mul(extent));
            fits
        })
}

/// The number of elements; `None` if it is no number of 64 bits, or an extent is negative.
pub(super) fn count(shape: &[i64]) -> Option<u64> {
    let extents = shape.iter().map(|&extent| u64::try_from(extent).ok());
    // An extent of 0 makes it 0, whatever the others are.
    if shape.contains(&0) && shape.iter().all(|&extent| extent >= 0) {
        return Some(0);
    }
    extents.into_iter().try_fold(1_u64, |product, extent| product.checked_mul(extent?))
}

/// The error of memory with gaps, or in another order.
pub(super) fn not_contiguous(what: &str, remedy: &str) -> PyErr {
    PyBufferError::new_err(format!(
        "{what} is not contiguous: its elements do not lie in the order of their indices without gaps, and a region is one range of \
         memory. Register {remedy}"
    ))
}
