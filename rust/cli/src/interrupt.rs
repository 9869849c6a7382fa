//! Signals to a command that ends by itself: the first one lets it clean up, print what it has done, and keep that; the second
//! one ends it at once. The status is 128 + the signal's number in both cases, 130 for Ctrl-C.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Problem, Result};
use crate::output;
use crate::signals;

/// How long an interrupted command may take to end. A read of standard input, for one, cannot be interrupted.
const CLEAN_UP: Duration = Duration::from_secs(2);
/// How often a sleeping command looks for a signal.
const LOOK: Duration = Duration::from_millis(20);

/// The first signal that came, 0 before. Written by the thread that waits for signals, read by all others: it carries no other
/// data, so it needs no ordering.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static KEPT: Mutex<Kept> = Mutex::new(Kept::NOTHING);

/// What stays when a command is interrupted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    /// Told at the end; empty for nothing.
    text: &'static str,
    /// Told at the signal, where the end may take any time. `None`: it takes [`CLEAN_UP`] at most.
    ending: Option<&'static str>,
}

impl Kept {
    pub(crate) const NOTHING: Self = Self { text: "", ending: None };
    /// Of files that were moved in part.
    pub(crate) const PARTS: Self = Self {
        text: "what has arrived of large files is kept for a day, and the next run of this command continues them",
        ending: None,
    };
    /// Of a benchmark. Files are written at its end, and the bytes of the last row are compared before.
    pub(crate) const ROWS: Self = Self {
        text: "the rows that were complete are kept",
        ending: Some("ending with the rows so far; a second signal ends at once"),
    };
}

/// Notes signals from now on, instead of ending at once. Those that were ignored stay ignored.
pub(crate) fn handle(kept: Kept) -> Result<()> {
    keep(kept);
    signals::on_each(|signal| {
        if SIGNAL.swap(signal, Ordering::Relaxed) != 0 {
            end_now(signal);
        }
        match now_kept().ending {
            Some(text) => output::remark(text),
            // Without a further thread there is no limit, but a second signal.
            None => drop(thread::Builder::new().name("clean-up".into()).spawn(move || {
                thread::sleep(CLEAN_UP);
                end_now(signal);
            })),
        }
    })
}

/// Changes what is kept.
pub(crate) fn keep(kept: Kept) {
    *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = kept;
}

/// Whether to end.
pub(crate) fn requested() -> bool {
    SIGNAL.load(Ordering::Relaxed) != 0
}

/// An error once a signal has come.
pub(crate) fn check() -> Result<()> {
    match SIGNAL.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => Err(by(signal).into()),
    }
}

/// Sleeps for so long, or until a signal comes, which is an error.
pub(crate) fn sleep(time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    loop {
        check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(LOOK));
    }
}

fn by(signal: i32) -> Problem {
    Problem::Interrupted { signal, kept: now_kept().text }
}

fn now_kept() -> Kept {
    *KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end_now(signal: i32) -> ! {
    output::remark(&format!("flagcx-p2p: {}", by(signal)));
    signals::exit(signal)
}
