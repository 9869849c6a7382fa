//! What this process has counted, for programs that watch themselves.

use flagcx_p2p::internals::observe::{Metric, Snapshot, Value, metrics, registry};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Becomes a `flagcx_p2p.Stats`.
#[derive(Debug)]
pub(crate) struct Stats(Snapshot);

impl Stats {
    /// What has been counted until now.
    pub(crate) fn take() -> Self {
        Self(registry().snapshot())
    }

    /// The sum of a metric's samples.
    fn sum(&self, metric: &'static Metric) -> u64 {
        self.0.of(metric).map(|sample| number(&sample.value)).fold(0, u64::wrapping_add)
    }

    fn amount<'py>(&self, py: Python<'py>, metrics: [&'static Metric; 2]) -> PyResult<Bound<'py, PyDict>> {
        let [transfers, bytes] = metrics.map(|metric| self.sum(metric));
        let amount = PyDict::new(py);
        amount.set_item("transfers", transfers)?;
        amount.set_item("bytes", bytes)?;
        Ok(amount)
    }

    /// Writes one column of what ended: `ended[direction][path][outcome][name]`.
    fn write_ended(&self, ended: &Bound<'_, PyDict>, metric: &'static Metric, name: &str) -> PyResult<()> {
        for sample in self.0.of(metric) {
            let label = |wanted: &str| {
                let found = sample.labels.iter().find(|(name, _)| *name == wanted);
                found.map_or("", |(_, value)| value.as_str())
            };
            let path = within(&within(ended, label("direction"))?, label("path"))?;
            within(&path, label("outcome"))?.set_item(name, number(&sample.value))?;
        }
        Ok(())
    }
}

impl<'py> IntoPyObject<'py> for Stats {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (stats, ended) = (PyDict::new(py), PyDict::new(py));
        for direction in ["read", "write"] {
            within(&ended, direction)?;
        }
        self.write_ended(&ended, &metrics::ENDED, "transfers")?;
        self.write_ended(&ended, &metrics::ENDED_BYTES, "bytes")?;
        stats.set_item("ended", ended)?;
        stats.set_item("in_flight", self.amount(py, [&metrics::IN_FLIGHT, &metrics::IN_FLIGHT_BYTES])?)?;
        stats.set_item("regions", self.sum(&metrics::REGIONS))?;
        stats.set_item("registered_bytes", self.sum(&metrics::REGISTERED_BYTES))?;
        stats.set_item("connections", self.sum(&metrics::CONNECTIONS))?;
        stats.set_item("connections_ended", self.sum(&metrics::CONNECTIONS_ENDED))?;
        stats.set_item("lane_retries", self.sum(&metrics::LANE_RETRIES))?;
        stats.set_item("lane_rebuilds", self.sum(&metrics::LANE_REBUILDS))?;
        stats.set_item("registration_failures", self.sum(&metrics::REGISTRATION_FAILURES))?;
        Ok(stats)
    }
}

/// The dictionary under that key, made at the first use.
fn within<'py>(of: &Bound<'py, PyDict>, key: &str) -> PyResult<Bound<'py, PyDict>> {
    if let Some(found) = of.get_item(key)? {
        return Ok(found.cast_into()?);
    }
    let made = PyDict::new(of.py());
    of.set_item(key, &made)?;
    Ok(made)
}

fn number(value: &Value) -> u64 {
    match value {
        Value::Number(number) => *number,
        Value::Seconds(_) | Value::Histogram(_) => 0,
    }
}
