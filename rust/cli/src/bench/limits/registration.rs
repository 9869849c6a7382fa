//! How fast the engine's device registers memory: what a program pays before its first transfer.

use std::time::Duration;

use flagcx_p2p::Engine;
use flagcx_p2p::internals::fabric::Provider;
use serde::{Deserialize, Serialize};

use crate::error::{CliError, Result};
use crate::output::units::{self, gigabytes_per_second};

/// Most bytes that are registered for it.
const MOST: u64 = 256 << 20;

/// Host memory that a device has registered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RegistrationRate {
    pub(crate) device: String,
    pub(crate) bytes: u64,
    pub(crate) microseconds: f64,
    /// None of a software device: it pins no pages, and takes the same time for any length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gigabytes_per_second: Option<f64>,
}

impl RegistrationRate {
    /// Of the engine's device, with as many bytes as a pool has.
    pub(crate) fn measure(engine: &Engine, pool: u64) -> Result<Self> {
        let device = engine.device().ok_or_else(|| CliError::other("the engine has no device"))?;
        let attributes = device.attributes();
        let bytes = pool.min(MOST);
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        // The clock may not have moved.
        let time = engine.registration_time(length)?.max(Duration::from_nanos(1));
        Ok(Self {
            device: attributes.name.clone(),
            bytes,
            microseconds: time.as_secs_f64() * 1e6,
            gigabytes_per_second: (attributes.provider == Provider::Verbs)
                .then(|| gigabytes_per_second(bytes, time)),
        })
    }

    /// `registration of 256 MiB on mlx5_0: 40.1 GB/s (6694.3 us)`.
    pub(crate) fn text(&self) -> String {
        let Self { device, bytes, microseconds, .. } = self;
        let rate = match self.gigabytes_per_second {
            Some(rate) => format!("{rate:.1} GB/s"),
            None => "no pages are pinned".to_owned(),
        };
        format!("registration of {} on {device}: {rate} ({microseconds:.1} us)", units::bytes(*bytes))
    }
}
