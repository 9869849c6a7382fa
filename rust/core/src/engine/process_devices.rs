//! The one list of devices of a process, and the settings that it was opened with.

use once_cell::sync::OnceCell;

use super::EngineError;
use super::open::own_address;
use crate::config::{Config, DeviceSettings};
use crate::control::LocalAddress;
use crate::fabric::DeviceList;
use crate::fork::PerProcess;

/// The devices of the process, opened as `config` says at the first call. Engines choose from it by default.
///
/// Later calls answer what is open, whatever `config` asks for.
pub fn devices(config: &Config) -> Result<&'static DeviceList, EngineError> {
    Ok(&opened(config, &own_address(config)?)?.list)
}

/// The same for an engine, which is refused if its configuration asks for other devices than are open.
pub(super) fn for_engine(
    config: &Config,
    address: &LocalAddress,
) -> Result<&'static DeviceList, EngineError> {
    let Opened { list, settings } = opened(config, address)?;
    settings.check(config, list.selection().provider)?;
    Ok(list)
}

#[derive(Debug)]
struct Opened {
    list: DeviceList,
    settings: DeviceSettings,
}

/// Opens the list at the first call; a failure is repeated to every caller until an attempt succeeds.
fn opened(config: &Config, address: &LocalAddress) -> Result<&'static Opened, EngineError> {
    static OPENED: PerProcess<OnceCell<Opened>> = PerProcess::new(OnceCell::new);
    OPENED.get().get_or_try_init(|| {
        let mut options = config.fabric_options()?;
        // Peers are told where data is listened for: `FLAGCX_P2P_BIND` may be unspecified, what they are told is not.
        options.software.bind = Some(address.listen());
        options.software.advertise = address.advertised.map(|advertised| advertised.ip);
        Ok(Opened { list: DeviceList::open(&options)?, settings: DeviceSettings::of(config) })
    })
}
