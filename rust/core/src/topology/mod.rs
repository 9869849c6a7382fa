//! topology
/// Pins.
pub fn pin_current_thread(_cpus: &[usize]) -> Result<(), String> {
    Ok(())
}
