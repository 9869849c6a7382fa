//! In a build without the endpoint.

use std::sync::Once;

use crate::config::Config;
use crate::fork::PerProcess;

/// What an engine holds of the endpoint.
#[derive(Debug)]
pub(crate) struct EndpointUse(());

impl EndpointUse {
    /// Logs once that there is none, if one was asked for.
    pub(crate) fn acquire(config: &Config) -> Option<Self> {
        static SAID: PerProcess<Once> = PerProcess::new(Once::new);
        let address = config.metrics.as_ref()?;
        SAID.get().call_once(|| {
            tracing::warn!(
                "FLAGCX_P2P_METRICS={address} has no effect: this build is without the feature metrics-endpoint"
            );
        });
        None
    }
}
