//! The rails of a connection as Python has them.

use flagcx_p2p::{RailInfo, RailStatus};
use pyo3::prelude::*;

use crate::named::NamedTuple;

/// A RailInfo. Times are in seconds.
pub(crate) fn named(py: Python<'_>, info: RailInfo) -> PyResult<Bound<'_, PyAny>> {
    static CLASS: NamedTuple = NamedTuple::new("RailInfo");
    let paused = match info.status {
        RailStatus::Paused { left } => Some(left.as_secs_f64()),
        RailStatus::Up | RailStatus::Down => None,
    };
    let state =
        (info.rail, info.nic, info.peer_nic, info.status.name(), paused, info.lanes, info.healthy_lanes);
    let counts = (info.written_bytes, info.read_bytes, info.in_flight_bytes, info.rate_bytes_per_second);
    let pauses = (
        info.moved_parts,
        info.pauses,
        info.last_pause.map(|pause| pause.reason.name()),
        info.last_pause.map(|pause| pause.ago.as_secs_f64()),
        info.latency.map(|latency| latency.as_secs_f64()),
    );
    let (state, counts) = (state.into_pyobject(py)?, counts.into_pyobject(py)?);
    let pauses = pauses.into_pyobject(py)?;
    let fields = state.as_sequence().concat(counts.as_sequence())?.concat(pauses.as_sequence())?;
    CLASS.of_tuple(py, &fields.to_tuple()?)
}
