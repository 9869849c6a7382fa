//! The argument `settings` of an engine: what it may hold.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use flagcx_p2p::Config;
use flagcx_p2p::internals::config::{Files, RETIRED, closest_variable, groups};
use flagcx_p2p::internals::fork::PerProcess;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::refused;

/// Variables of the log, which a process has one of.
const OF_THE_LOG: &[&str] = &["FLAGCX_DEBUG", "FLAGCX_DEBUG_SUBSYS", "FLAGCX_DEBUG_FILE"];

/// Variables that count when the process opens its devices, with its first engine, and not again.
const OF_DEVICES: &[&str] = &[
    "FLAGCX_IB_ADDR_FAMILY",
    "FLAGCX_IB_ADDR_RANGE",
    "FLAGCX_IB_DISABLE",
    "FLAGCX_IB_GID_INDEX",
    "FLAGCX_IB_HCA",
    "FLAGCX_IB_PCI_RELAXED_ORDERING",
    "FLAGCX_IB_PKEY",
    "FLAGCX_IB_RETRY_CNT",
    "FLAGCX_IB_ROCE_VERSION_NUM",
    "FLAGCX_IB_SL",
    "FLAGCX_IB_TC",
    "FLAGCX_IB_TIMEOUT",
    "FLAGCX_P2P_FABRIC",
    "FLAGCX_P2P_FAULTS",
    "FLAGCX_P2P_GID_INDEX",
    "FLAGCX_P2P_IBVERBS",
    "FLAGCX_P2P_IB_PORT",
    "FLAGCX_P2P_IB_TC",
    "FLAGCX_P2P_MTU",
    "FLAGCX_P2P_PATH",
    "FLAGCX_P2P_RETRY_CNT",
    "FLAGCX_P2P_SOFTWARE_DEVICES",
];

type Texts = BTreeMap<&'static str, Option<String>>;

/// Those of [`OF_DEVICES`] with which the devices were opened. Locked for moments, in which no Python code runs.
static IN_FORCE: PerProcess<Mutex<Option<Texts>>> = PerProcess::new(Mutex::default);

/// The configuration with these settings before those of the environment and of the configuration files.
pub(crate) fn config(settings: Option<HashMap<String, String>>) -> PyResult<Arc<Config>> {
    let Some(settings) = settings else { return Ok(Config::global()) };
    let mut names: Vec<_> = settings.keys().map(String::as_str).collect();
    names.sort_unstable();
    names.iter().try_for_each(|name| check(name))?;
    let files = Files::load();
    let config = Config::from_source(&|name| settings.get(name).cloned().or_else(|| files.layered(name)));
    let asked = texts(&config);
    if let Some(in_force) = &*lock() {
        let other = names.iter().find(|name| asked.get(*name) != in_force.get(*name));
        other.map_or(Ok(()), |name| Err(already_open(name, in_force)))?;
    }
    Ok(Arc::new(config))
}

/// Notes with what the devices were opened, if this engine is the first.
pub(crate) fn note_in_force(config: &Config) {
    lock().get_or_insert_with(|| texts(config));
}

fn lock() -> std::sync::MutexGuard<'static, Option<Texts>> {
    IN_FORCE.get().lock().unwrap_or_else(PoisonError::into_inner)
}

fn texts(config: &Config) -> Texts {
    let settings = config.settings().iter().filter(|one| OF_DEVICES.contains(&one.variable.name));
    settings.map(|one| (one.variable.name, one.text.clone())).collect()
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

#[cold]
fn already_open(name: &str, in_force: &Texts) -> PyErr {
    let now = match in_force.get(name) {
        Some(Some(text)) => format!("{name}={text}"),
        _ => format!("{name} unset"),
    };
    refused(format!(
        "settings: {name} has no effect any more: the process opened its devices with its first engine, with {now}. Set it for that \
         engine, or in the environment"
    ))
}
