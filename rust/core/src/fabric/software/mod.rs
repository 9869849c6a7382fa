//! The software fabric: RC queue pairs without a NIC.
use super::{Device, FabricError, SoftwareOptions};
use std::sync::Arc;
/// Opens the software devices.
pub fn open(_options: &SoftwareOptions) -> Result<Vec<Arc<dyn Device>>, FabricError> {
    Err(FabricError::Unsupported("software fabric is not built yet".into()))
}
