//! `doctor`
use crate::error::Result;
/// Runs `doctor`.
pub(crate) fn run() -> Result<()> {
    Ok(())
}
