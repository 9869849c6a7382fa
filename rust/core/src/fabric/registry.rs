//! Lists of devices: (provider, index). Engines and FlagCX's adaptor table both read that of the process.

use std::sync::Arc;

use super::{Device, FabricChoice, FabricError, FabricOptions, Provider, software};

/// The devices of the process, in the order of their index.
#[derive(Debug)]
pub struct DeviceList {
    devices: Vec<Arc<dyn Device>>,
    selection: Selection,
}

/// Which provider runs, and why.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Provider of the listed devices; `None` when there are none.
    pub provider: Option<Provider>,
    /// The reason, in words for an operator.
    pub reason: String,
    /// Why verbs do not run, if they do not.
    pub refusal: Option<FabricError>,
    /// RDMA ports that are not used although others are, a line each, with what was found.
    pub not_used: Vec<String>,
}

/// What a provider has opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) devices: Vec<Arc<dyn Device>>,
    /// As [`Selection::not_used`].
    pub(super) not_used: Vec<String>,
}

impl DeviceList {
    /// All devices.
    pub fn devices(&self) -> &[Arc<dyn Device>] {
        &self.devices
    }

    /// Which provider runs, and why.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// A list of devices that were opened elsewhere, all of one provider.
    pub fn of(devices: Vec<Arc<dyn Device>>) -> Self {
        let provider = devices.first().map(|device| device.attributes().provider);
        Self {
            devices,
            selection: Selection {
                provider,
                reason: "given by the program".to_owned(),
                refusal: None,
                not_used: Vec::new(),
            },
        }
    }

    /// Opens the devices that `options` ask for.
    pub fn open(options: &FabricOptions) -> Result<Self, FabricError> {
        let verbs = match options.choice {
            FabricChoice::Software => Err(FabricError::Unsupported("FLAGCX_P2P_FABRIC=software".to_owned())),
            _ if options.verbs_disabled => {
                Err(FabricError::Unsupported("verbs are turned off by FLAGCX_IB_DISABLE".to_owned()))
            }
            FabricChoice::Auto | FabricChoice::Verbs => open_verbs(options),
        };
        match (verbs, options.choice) {
            (Ok(Opened { devices, not_used }), _) => {
                let names: Vec<_> = devices.iter().map(|device| device.attributes().name.clone()).collect();
                let reason = format!("active RDMA ports found: {}", names.join(", "));
                tracing::info!(provider = "verbs", "{reason}");
                for port in &not_used {
                    tracing::info!("not used: {port}");
                }
                let selection =
                    Selection { provider: Some(Provider::Verbs), reason, refusal: None, not_used };
                Ok(Self { devices, selection })
            }
            (Err(error), FabricChoice::Verbs) => Err(error),
            (Err(error), choice) => {
                let devices = software::open(&options.software)?;
                let reason = error.to_string();
                tracing::info!(provider = "software", "{reason}");
                if choice != FabricChoice::Software {
                    tracing::warn!(
                        "no RDMA NIC in use: data moves by software; `flagcx-p2p doctor` says why"
                    );
                }
                let provider = Some(Provider::Software);
                let selection = Selection { provider, reason, refusal: Some(error), not_used: Vec::new() };
                Ok(Self { devices, selection })
            }
        }
    }
}

#[cfg(feature = "verbs")]
fn open_verbs(options: &FabricOptions) -> Result<Opened, FabricError> {
    // Nothing else can take the place of verbs where they alone are asked for: each device says by itself why it refuses.
    if options.choice == FabricChoice::Auto {
        super::verbs::list_usable(&options.verbs)
    } else {
        super::verbs::list(&options.verbs)
    }
}

#[cfg(not(feature = "verbs"))]
fn open_verbs(_: &FabricOptions) -> Result<Opened, FabricError> {
    Err(FabricError::Library {
        library: "libibverbs".to_owned(),
        reason: "this was built without the cargo feature `verbs`".to_owned(),
    })
}
