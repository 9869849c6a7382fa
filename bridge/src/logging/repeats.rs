//! Lines that repeat are counted, not printed: a caller in a loop, or a client in a loop, must not fill the log.
//!
//! The kind of a line is where it stands in the source, and for a refused call its name as well; texts differ by what a client
//! sends, so they do not count. The first [`BURST`] lines of a kind are printed; then one after each pause, which doubles
//! up to [`LONGEST`], with the number of those that were left out. A kind without a line for that long begins anew.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flagcx_p2p::internals::fork::PerProcess;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Filter};

/// Lines of a kind that are printed one by one.
const BURST: u32 = 10;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(64);
/// Kinds with a count of their own; further ones share one.
const MAX_KINDS: usize = 1024;
/// Bytes of a line that are kept as the example of its kind.
const EXAMPLE: usize = 256;

/// A forked child counts anew: a thread that does not exist there may have held the lock of its parent.
static KINDS: PerProcess<Mutex<Kinds>> = PerProcess::new(Mutex::default);

thread_local! {
    /// Distinguishes lines of one place in the source, while such a line is written.
    static DETAIL: Cell<u64> = const { Cell::new(0) };
    /// The kind of the line that is being printed, and the suffix for it.
    static PRINTED: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

#[derive(Debug, Default)]
struct Kinds(HashMap<u64, Kind>);

/// The count of the lines of one kind.
#[derive(Debug)]
struct Kind {
    printed: u32,
    left_out: u64,
    /// When a line of it was printed last.
    last: Instant,
    pause: Duration,
    example: String,
}

/// Whether a line is printed.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Print,
    /// So many were left out, in this time.
    PrintAfter(u64, Duration),
    LeaveOut,
}

impl Kinds {
    fn decide(&mut self, kind: u64, now: Instant) -> Decision {
        let kind = if self.0.len() < MAX_KINDS || self.0.contains_key(&kind) { kind } else { 0 };
        let kind = self.0.entry(kind).or_insert_with(|| Kind::new(now));
        kind.decide(now)
    }

    /// The kinds of which lines were left out since one was printed, each with an example and the number. Their counts begin
    /// anew.
    fn take_left_out(&mut self, now: Instant) -> Vec<(String, u64, Duration)> {
        let left_out = self.0.values_mut().filter(|kind| kind.left_out > 0);
        left_out
            .map(|kind| {
                let (count, since) =
                    (std::mem::take(&mut kind.left_out), now.saturating_duration_since(kind.last));
                kind.last = now;
                (kind.example.clone(), count, since)
            })
            .collect()
    }
}

impl Kind {
    fn new(now: Instant) -> Self {
        Self { printed: 0, left_out: 0, last: now, pause: SHORTEST, example: String::new() }
    }

    fn decide(&mut self, now: Instant) -> Decision {
        let since = now.saturating_duration_since(self.last);
        if since >= LONGEST && self.left_out == 0 {
            (self.printed, self.pause) = (0, SHORTEST);
        }
        if self.printed >= BURST && since < self.pause {
            self.left_out += 1;
            return Decision::LeaveOut;
        }
        if self.printed >= BURST {
            self.pause = (2 * self.pause).min(LONGEST);
        }
        self.printed = self.printed.saturating_add(1);
        self.last = now;
        match std::mem::take(&mut self.left_out) {
            0 => Decision::Print,
            count => Decision::PrintAfter(count, since),
        }
    }
}

/// Writes a line; its kind is its place in the source together with `detail`.
pub(crate) fn of_kind(detail: &str, write: impl FnOnce()) {
    let before = DETAIL.try_with(|cell| cell.replace(hash(detail))).unwrap_or_default();
    write();
    let _ = DETAIL.try_with(|cell| cell.set(before));
}

/// Writes how many lines were left out since the last of their kind: nothing is lost with the engine that ends.
pub(crate) fn flush() {
    let left_out = kinds().take_left_out(Instant::now());
    for (example, count, since) in left_out {
        tracing::info!(target: SUMMARY, "{count} more in the last {} s: {example}", seconds(since));
    }
}

/// Lines of this target are never left out.
const SUMMARY: &str = "flagcx_p2p::repeats";
/// The settings: each is printed once, from one place.
const CONFIG: &str = "flagcx_p2p::config";

/// Passes a line unless many of its kind were printed already. Before it is formatted: what is left out costs a look-up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeats;

impl<S: Subscriber> Filter<S> for Repeats {
    /// Called once for each line, since [`Filter::callsite_enabled`] answers "sometimes". Not `event_enabled`: a filter of one
    /// layer that refuses there leaves the subscriber's note that it did, until the thread's next line.
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        if !is_counted(metadata) {
            return set_suffix(0, String::new());
        }
        let kind = hash(&(metadata.callsite(), DETAIL.try_with(Cell::get).unwrap_or_default()));
        let decision = kinds().decide(kind, Instant::now());
        match decision {
            Decision::LeaveOut => false,
            Decision::PrintAfter(count, since) => {
                set_suffix(kind, format!(" ({count} more in the last {} s)", seconds(since)))
            }
            Decision::Print => set_suffix(kind, String::new()),
        }
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_counted(metadata) { Interest::sometimes() } else { Interest::always() }
    }
}

/// Debug lines are all printed.
fn is_counted(metadata: &Metadata<'_>) -> bool {
    let every = metadata.target() == SUMMARY || metadata.target().starts_with(CONFIG);
    metadata.is_event() && *metadata.level() <= Level::INFO && !every
}

/// Sets the suffix of this thread's next line. True.
fn set_suffix(kind: u64, suffix: String) -> bool {
    let _ = PRINTED.try_with(|printed| printed.replace((kind, suffix)));
    true
}

fn seconds(time: Duration) -> u64 {
    time.as_secs().max(1)
}

fn hash(of: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn kinds() -> MutexGuard<'static, Kinds> {
    KINDS.get().lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes lines with the suffixes of [`Repeats`].
#[derive(Clone, Debug)]
pub(super) struct Counted<M>(pub(super) M);

/// One line on its way.
#[derive(Debug)]
pub(super) struct CountedLine<W>(W);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Counted<M> {
    type Writer = CountedLine<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        CountedLine(self.0.make_writer())
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        CountedLine(self.0.make_writer_for(metadata))
    }
}

impl<W: Write> Write for CountedLine<W> {
    /// Takes a whole line at once, as the formatting layer writes it.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let (kind, suffix) = PRINTED.try_with(RefCell::take).unwrap_or_default();
        if kind != 0
            && let Some(kind) = kinds().0.get_mut(&kind)
        {
            let line = text.trim_ascii_end();
            let line = String::from_utf8_lossy(line.get(..EXAMPLE).unwrap_or(line));
            kind.example = line.into_owned();
        }
        if suffix.is_empty() {
            self.0.write_all(text)?;
        } else {
            let line = [text.trim_ascii_end(), suffix.as_bytes(), b"\n"].concat();
            self.0.write_all(&line)?;
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests;
