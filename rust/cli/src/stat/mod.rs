//! `stat`: what a process's engines do, read from its metrics endpoint.
//!
//! ```text
//!   target ── HOST:PORT, unix:PATH or a PID ──▶ fetch ── /snapshot ──▶ page
//!                                       two pages ──▶ summary ──▶ view ──▶ screen, or JSON
//! ```

mod channels;
mod columns;
mod fetch;
mod listening;
mod of_pid;
mod page;
mod rails;
mod screen;
mod series;
mod summary;
mod target;
mod view;

use std::time::Duration;

use crate::error::{Result, While};
use crate::interrupt::{self, Kept};
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
    // Between two tables: the last one stays whole.
    interrupt::handle(Kept::NOTHING)?;
    let mut screen = Screen::new();
    let (mut before, mut shown) = (read()?, 0);
    loop {
        interrupt::sleep(options.interval)?;
        let now = read()?;
        let summary = Summary::between(&before, &now);
        if options.json {
            output::json_line(&summary);
        } else {
            screen.show(&summary);
        }
        shown += 1;
        if options.count.is_some_and(|count| shown >= count) || output::check().is_err() {
            return Ok(());
        }
        before = now;
    }
}
