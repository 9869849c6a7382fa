//! Configuration: one table of variables.
/// All settings, parsed.
#[derive(Clone, Debug, Default)]
pub struct Config {}
