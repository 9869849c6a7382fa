//! The argument `settings` of an engine: what it may hold.

use std::collections::HashMap;
use std::sync::Arc;

use flagcx_p2p::Config;
use flagcx_p2p::internals::config::{Files, RETIRED, closest_variable, groups};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Variables of the log, which a process has one of.
const OF_THE_LOG: &[&str] = &["FLAGCX_DEBUG", "FLAGCX_DEBUG_SUBSYS", "FLAGCX_DEBUG_FILE"];

/// The configuration with these settings before those of the environment and of the configuration files.
pub(crate) fn config(settings: Option<HashMap<String, String>>) -> PyResult<Arc<Config>> {
    let Some(settings) = settings else { return Ok(Config::global()) };
    let mut names: Vec<_> = settings.keys().map(String::as_str).collect();
    names.sort_unstable();
    names.iter().try_for_each(|name| check(name))?;
    let files = Files::load();
    let find = |name: &str| settings.get(name).cloned().or_else(|| files.layered(name));
    Ok(Arc::new(Config::from_source(&find)))
}

/// Refuses a name that would have no effect.
fn check(name: &str) -> PyResult<()> {
    if OF_THE_LOG.contains(&name) {
        let text = format!("settings: {name} is the process's, not an engine's: set it in the environment");
        return Err(PyValueError::new_err(text));
    }
    if let Some((_, reason)) = RETIRED.iter().find(|(retired, _)| *retired == name) {
        return Err(PyValueError::new_err(format!("settings: {name} has no effect: {reason}")));
    }
    if groups().iter().flat_map(|group| group.variables).any(|variable| variable.name == name) {
        return Ok(());
    }
    let advice = closest_variable(name).map_or_else(
        || "`flagcx-p2p config` lists them".to_owned(),
        |meant| format!("did you mean {meant}?"),
    );
    Err(PyValueError::new_err(format!("settings: {name} is not a variable of this engine; {advice}")))
}
