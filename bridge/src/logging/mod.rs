//! Where log lines go: into the surrounding FlagCX if there is one, else to stderr or `FLAGCX_DEBUG_FILE`.
#![allow(unsafe_code, reason = "calls the C++ function that takes log lines")]

mod repeats;
mod sink;
mod stderr;

use std::sync::{Arc, Once};

use flagcx_p2p::internals::config::{Files, LogSettings};
use flagcx_p2p::internals::fork::PerProcess;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use repeats::{Counted, Repeats};
use sink::Sink;
use stderr::Stderr;

pub(crate) use repeats::{flush, of_kind};

/// Sets up logging at the first call; later ones do nothing. A subscriber that is set already is left alone.
///
/// # Safety
/// `sink` is 0 or the address of a C function of type [`sink::Function`] that may be called from any thread, for ever.
pub(crate) unsafe fn start_logging(sink: usize) {
    static STARTED: PerProcess<Once> = PerProcess::new(Once::new);
    STARTED.get().call_once(|| {
        // Read apart from the engine's configuration, which logs while it is being read.
        let files = Files::load();
        let settings = LogSettings::read(&|name| files.layered(name));
        // SAFETY: the caller's promise.
        match unsafe { Sink::from_address(sink) } {
            Some(sink) => install_flagcx(&settings, sink),
            None => install_stand_alone(settings),
        }
    });
}

/// FlagCX decides what it prints; here only levels are left out that it never prints.
fn install_flagcx(settings: &LogSettings, sink: Sink) {
    let level = settings.level;
    let layer = tracing_subscriber::fmt::layer()
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_ansi(false)
        .with_writer(Counted(sink))
        .with_filter(filter_fn(move |metadata| *metadata.level() <= level).and(Repeats));
    // A global subscriber that the program has installed has precedence.
    if tracing_subscriber::registry().with(layer).try_init().is_ok() {
        complain(settings.complaint());
    }
}

fn install_stand_alone(settings: LogSettings) {
    let wrong = settings.complaint();
    let (writer, complaint) = match settings.open_file() {
        Ok(Some(file)) => (BoxMakeWriter::new(Arc::new(file)), None),
        Ok(None) => (BoxMakeWriter::new(|| Stderr), None),
        Err(error) => (BoxMakeWriter::new(|| Stderr), Some(error)),
    };
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Counted(writer)).with_filter(
        filter_fn(move |metadata| settings.allows(*metadata.level(), metadata.target())).and(Repeats),
    );
    if tracing_subscriber::registry().with(layer).try_init().is_ok() {
        complain(complaint.map(|error| format!("FLAGCX_DEBUG_FILE: {error}; logging to stderr")));
        complain(wrong);
    }
}

fn complain(line: Option<String>) {
    if let Some(line) = line {
        tracing::warn!("{line}");
    }
}
