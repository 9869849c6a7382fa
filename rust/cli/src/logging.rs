//! The tool's log: how much by `-v`, `RUST_LOG` or the variables of FlagCX, and where to by `FLAGCX_DEBUG_FILE`.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::sync::{Arc, OnceLock};

use flagcx_p2p::internals::config::{Files, LogSettings};
use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Filter, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::output::colour;

const FILE: &str = "FLAGCX_DEBUG_FILE";

/// What `FLAGCX_DEBUG_FILE` is for a process that this one starts; set once, by [`start`].
static OF_CHILD: OnceLock<OsString> = OnceLock::new();
/// Set if `FLAGCX_DEBUG` is no level.
static WRONG_LEVEL: OnceLock<()> = OnceLock::new();

/// Starts logging to the file of `FLAGCX_DEBUG_FILE`, else to stderr. The level is that of `verbose`, the number of `-v`,
/// else of `RUST_LOG`, else of `FLAGCX_DEBUG`. `FLAGCX_DEBUG_SUBSYS` narrows all but `RUST_LOG`.
///
/// Warnings of a command that ends soon carry no time: on a terminal it is longer than their text.
pub(crate) fn start(verbose: u8, ends_soon: bool) {
    let files = Files::load();
    let settings = LogSettings::read(&|name| layered(name, verbose, &|name| files.layered(name)));
    let complaint = settings.complaint();
    let (writer, is_file, failed) = match settings.open_file() {
        Ok(Some(file)) => (BoxMakeWriter::new(Arc::new(file)), true, None),
        Ok(None) => (BoxMakeWriter::new(io::stderr), false, None),
        Err(error) => (BoxMakeWriter::new(io::stderr), false, Some(error)),
    };
    // This process is the only one that comes here.
    let _ = OF_CHILD.set(of_child(&files.layered(FILE).unwrap_or_default(), is_file).into());
    let layer = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(!is_file && colour::on(io::stderr().is_terminal()))
        .with_writer(writer);
    let layer =
        if ends_soon && !is_file && verbose == 0 { layer.without_time().boxed() } else { layer.boxed() };
    let filter: Box<dyn Filter<Registry> + Send + Sync> = match (verbose, std::env::var("RUST_LOG")) {
        (0, Ok(directives)) => Box::new(EnvFilter::new(directives)),
        _ => Box::new(filter_fn(move |metadata| settings.allows(*metadata.level(), metadata.target()))),
    };
    // A subscriber that the program has set already has precedence.
    let started = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().is_ok();
    if let Some(error) = failed.filter(|_| started) {
        tracing::warn!("{FILE}: {error}; logging to stderr");
    }
    if let Some(complaint) = complaint {
        let _ = WRONG_LEVEL.set(());
        tracing::warn!("{complaint}");
    }
}

/// Variables for a process that this one starts: what is wrong with the level has been told.
pub(crate) fn of_started() -> impl Iterator<Item = (&'static str, &'static OsStr)> {
    let level = WRONG_LEVEL.get().map(|()| ("FLAGCX_DEBUG", OsStr::new("WARN")));
    OF_CHILD.get().map(|value| (FILE, value.as_os_str())).into_iter().chain(level)
}

/// The variables of the log as `-v` changes them: it sets the level, and shows all subsystems where none is named.
fn layered(name: &str, verbose: u8, get: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    match (name, verbose) {
        (_, 0) => get(name),
        ("FLAGCX_DEBUG", 1) => Some("INFO".to_owned()),
        ("FLAGCX_DEBUG", _) => Some("TRACE".to_owned()),
        ("FLAGCX_DEBUG_SUBSYS", _) => get(name).or_else(|| Some("ALL".to_owned())),
        _ => get(name),
    }
}

/// A process that is started has a file of its own: each empties its file first. One that cannot be opened is not tried
/// again, because its error has been told.
fn of_child(file: &str, is_open: bool) -> String {
    match is_open {
        false => String::new(),
        true if file.contains("%p") => file.to_owned(),
        true => format!("{file}.server"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(verbose: u8, variables: &[(&str, &str)]) -> LogSettings {
        let get = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        LogSettings::read(&|name| layered(name, verbose, &get))
    }

    #[test]
    fn verbose_sets_the_level_and_keeps_the_subsystems() {
        let (info, debug, trace) = (tracing::Level::INFO, tracing::Level::DEBUG, tracing::Level::TRACE);
        let (memory, pool) = ("flagcx_p2p::memory", "flagcx_p2p::pool");
        let plain = settings(1, &[("FLAGCX_DEBUG", "WARN")]);
        assert!(plain.allows(info, pool) && plain.allows(info, memory) && !plain.allows(debug, pool));
        let narrow = settings(2, &[("FLAGCX_DEBUG_SUBSYS", "REG")]);
        assert!(narrow.allows(trace, memory) && !narrow.allows(trace, pool));
        let without = settings(0, &[("FLAGCX_DEBUG", "INFO"), ("FLAGCX_DEBUG_SUBSYS", "REG")]);
        assert!(without.allows(info, memory) && !without.allows(debug, memory));
    }

    #[test]
    fn two_processes_never_write_one_file() {
        assert_eq!(of_child("/tmp/log", true), "/tmp/log.server");
        assert_eq!(of_child("/tmp/log.%p", true), "/tmp/log.%p");
        assert_eq!(of_child("/nowhere/log", false), "");
    }
}
