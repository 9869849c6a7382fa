//! `stat`: what a process's engines do, read from its metrics endpoint.
//!
//! ```text
//!   target ── HOST:PORT, unix:PATH or a PID ──▶ fetch ── /snapshot ──▶ page
//!                                       two pages ──▶ summary ──▶ view ──▶ screen, or JSON
//! ```

mod columns;
mod fetch;
mod listening;
mod of_pid;
mod page;
mod screen;
mod series;
mod summary;
mod target;
mod view;

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::{CliError, Result, While};
use crate::output;

use fetch::fetch;
use page::Page;
use screen::Screen;
use summary::Summary;
pub(crate) use target::Target;

/// What to show, and how often.
#[derive(Debug)]
pub(crate) struct StatOptions {
    pub(crate) target: Target,
    pub(crate) interval: Duration,
    /// `None`: until Ctrl-C.
    pub(crate) count: Option<u64>,
    pub(crate) json: bool,
}

/// Shows tables until there are enough, the process ends, or Ctrl-C.
pub(crate) fn run(options: &StatOptions) -> Result<()> {
    let endpoint = options.target.resolve()?;
    let read = || {
        let text = fetch(&endpoint, "/snapshot").doing(|| format!("read the metrics of {endpoint}"))?;
        Page::parse(&text).doing(|| format!("read the metrics of {endpoint}"))
    };
    let stop = stop_signals()?;
    let mut screen = Screen::new();
    let (mut before, mut shown) = (read()?, 0);
    while !is_stopped(&stop, options.interval) {
        let now = read()?;
        let summary = Summary::between(&before, &now);
        if options.json {
            let line = serde_json::to_string(&summary).map_err(|error| CliError::other(error.to_string()))?;
            output::line(&line);
        } else {
            screen.show(&summary);
        }
        shown += 1;
        if options.count.is_some_and(|count| shown >= count) || output::check().is_err() {
            break;
        }
        before = now;
    }
    Ok(())
}

/// Ctrl-C ends the command between two tables: the last one stays whole.
fn stop_signals() -> Result<Receiver<()>> {
    let (sender, receiver) = channel();
    let handled = || -> std::io::Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for (seen, signal) in signals.forever().enumerate() {
                // The second one does not wait for a process that does not answer.
                if seen > 0 || sender.send(()).is_err() {
                    std::process::exit(128 + signal);
                }
            }
        })?;
        Ok(())
    };
    handled().map_err(|error| CliError::other(format!("cannot handle signals: {error}")))?;
    Ok(receiver)
}

fn is_stopped(stop: &Receiver<()>, wait: Duration) -> bool {
    !matches!(stop.recv_timeout(wait), Err(RecvTimeoutError::Timeout))
}
