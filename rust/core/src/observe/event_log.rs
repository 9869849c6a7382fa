//! The last events of a process.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::{About, Event, EventKind};
use crate::fork::{PerProcess, ProcessGeneration};

/// Log lines of one kind of event in [`LINES_WITHIN`]: what is more is only counted.
pub(super) const LINES: u32 = 20;
const LINES_WITHIN: Duration = Duration::from_secs(10);

/// Events that are kept.
pub const EVENTS_KEPT: usize = 1024;

/// The last [`EVENTS_KEPT`] events, and how many of each kind there were. Events are rare: nothing of a transfer that ends well is
/// one. The lock is held for as long as one is added, or copied.
#[derive(Debug, Default)]
pub struct EventLog(Mutex<Events>);

#[derive(Debug, Default)]
struct Events {
    /// The newest last.
    last: VecDeque<Event>,
    /// Of the newest.
    sequence: u64,
    /// By the kind's place among all.
    counts: [u64; EventKind::ALL.len()],
    /// The log lines of each kind.
    lines: [LineLimit; EventKind::ALL.len()],
}

/// Bounds the log lines of one kind of event.
#[derive(Debug, Default)]
struct LineLimit {
    /// When the first of `written` was.
    since: Option<Instant>,
    written: u32,
    /// Not written since the last that was.
    missing: u64,
}

impl LineLimit {
    /// Whether a line may be written at `now`: how many were not before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= LINES_WITHIN) {
            (self.since, self.written) = (Some(now), 0);
        }
        if self.written == LINES {
            self.missing += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.missing))
    }
}

/// The log of this process.
pub fn event_log() -> &'static EventLog {
    static LOG: PerProcess<EventLog> = PerProcess::new(EventLog::of_process);
    LOG.get()
}

impl EventLog {
    /// An empty one, but for what the process begins with.
    fn of_process() -> Self {
        let log = Self::default();
        if ProcessGeneration::current().number() > 1 {
            let text = "this process was forked from one that had engines: it has none of them";
            log.record(EventKind::Forked, None, None, text.to_owned());
        }
        log
    }

    /// Adds an event that happens now; the oldest is dropped when the log is full.
    pub fn record(&self, kind: EventKind, peer: Option<String>, device: Option<String>, text: String) {
        self.lock().add(kind, peer, device, text);
    }

    /// [`EventLog::record`]; answers what is to be added to the text of the log line, `None` if there is to be none.
    pub(crate) fn report(&self, kind: EventKind, about: About, text: &str) -> Option<String> {
        let mut events = self.lock();
        events.add(kind, about.peer, about.device, text.to_owned());
        let missing = events.lines.get_mut(kind as usize)?.admit(Instant::now())?;
        Some(if missing == 0 { String::new() } else { format!(" ({missing} more like it were not logged)") })
    }

    /// The events that are kept, the oldest first.
    pub fn recent(&self) -> Vec<Event> {
        self.lock().last.iter().cloned().collect()
    }

    /// How many events of each kind there were, those that are not kept any more included.
    pub fn counts(&self) -> Vec<(EventKind, u64)> {
        EventKind::ALL.iter().copied().zip(self.lock().counts).collect()
    }

    /// The data behind the lock is consistent after every statement, so a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events {
    fn add(&mut self, kind: EventKind, peer: Option<String>, device: Option<String>, text: String) {
        let (at, events) = (SystemTime::now(), self);
        events.sequence += 1;
        if let Some(count) = events.counts.get_mut(kind as usize) {
            *count += 1;
        }
        if events.last.len() == EVENTS_KEPT {
            events.last.pop_front();
        }
        let sequence = events.sequence;
        events.last.push_back(Event { sequence, at, kind, peer, device, text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_kept_and_all_are_counted() {
        let log = EventLog::default();
        for number in 0..EVENTS_KEPT + 3 {
            log.record(EventKind::LaneError, Some(number.to_string()), None, String::new());
        }
        log.record(EventKind::Forked, None, None, "text".to_owned());
        let recent = log.recent();
        assert_eq!(recent.len(), EVENTS_KEPT);
        assert_eq!((recent[0].sequence, recent[0].peer.as_deref()), (5, Some("4")));
        let last = &recent[EVENTS_KEPT - 1];
        assert_eq!((last.sequence, last.kind, last.text.as_str()), (1028, EventKind::Forked, "text"));
        let count = |kind| log.counts().into_iter().find(|(of, _)| *of == kind).map(|(_, count)| count);
        assert_eq!((count(EventKind::LaneError), count(EventKind::Forked)), (Some(1027), Some(1)));
    }

    #[test]
    fn lines_of_a_kind_are_limited_and_events_are_not() {
        let log = EventLog::default();
        let report = |kind| log.report(kind, About::default(), "text");
        for _ in 0..LINES {
            assert_eq!(report(EventKind::LaneError).as_deref(), Some(""));
        }
        assert_eq!([report(EventKind::LaneError), report(EventKind::LaneError)], [None, None]);
        assert_eq!(report(EventKind::LaneRebuilt).as_deref(), Some(""), "each kind has lines of its own");
        assert_eq!(log.recent().len(), LINES as usize + 3);
        let mut limit = LineLimit { since: Some(Instant::now()), written: LINES, missing: 2 };
        assert_eq!(limit.admit(Instant::now()), None);
        assert_eq!(
            limit.admit(Instant::now() + LINES_WITHIN),
            Some(3),
            "the next line tells what is missing"
        );
    }

    #[test]
    fn every_kind_has_a_name_and_a_place_of_its_own() {
        for (place, kind) in EventKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, place);
            assert!(kind.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{kind}");
        }
        let mut names: Vec<_> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), EventKind::ALL.len());
    }
}
