//! What is under way on one stream, in order, and what becomes of it.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::events::Notifier;
use crate::fabric::{Batch, Completion, CompletionStatus};
use crate::gpu::{CopyStream, GpuError};

/// Marks of a stream that are in use at a time. Batches beyond share the mark of a later one.
const MARKS: usize = 32;

/// The stream and the requests that were posted on it.
#[derive(Debug)]
pub(super) struct Copies {
    pub(super) stream: Box<dyn CopyStream>,
    groups: VecDeque<Group>,
    /// Completions of what is over, not polled yet.
    over: VecDeque<Completion>,
    /// Requests posted that are not over.
    outstanding: u32,
    /// Groups marked so far: the number of the next mark, modulo [`MARKS`].
    marked: usize,
    /// Copies started since the notifier was last asked for.
    pub(super) is_unannounced: bool,
    /// Why no copy is started any more.
    error: Option<String>,
    /// Its work queue is gone: nothing is to be told any more.
    pub(super) is_orphaned: bool,
    /// An error that says nothing about the copies was logged.
    has_warned: bool,
}

/// Requests that were posted together.
#[derive(Debug)]
enum Group {
    /// Copies that were started: the first `count` of a batch of `length`.
    Started { first_id: u64, count: u32, length: usize, signal_every: u32, mark: Option<usize> },
    /// A request of which not everything could be started.
    Failed(Completion),
    /// Requests that were not started, as the queue was in ERROR.
    Flushed { first_id: u64, count: u32 },
}

impl Copies {
    pub(super) fn new(stream: Box<dyn CopyStream>) -> Self {
        Self {
            stream,
            groups: VecDeque::new(),
            over: VecDeque::new(),
            outstanding: 0,
            marked: 0,
            is_unannounced: false,
            error: None,
            is_orphaned: false,
            has_warned: false,
        }
    }

    pub(super) fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// Groups that are not over.
    pub(super) fn groups(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Starts no copy any more. The first reason stands.
    pub(super) fn break_off(&mut self, reason: &str) {
        self.error.get_or_insert_with(|| reason.to_owned());
    }

    /// Takes a new stream, nothing being under way.
    pub(super) fn renew(&mut self, stream: Box<dyn CopyStream>) {
        self.stream = stream;
        self.error = None;
        (self.has_warned, self.is_unannounced) = (false, false);
    }

    /// The first `count` requests of `batch` have been started.
    pub(super) fn started(&mut self, batch: &Batch<'_>, count: usize) {
        if count == 0 {
            return;
        }
        self.outstanding += count as u32;
        self.groups.push_back(Group::Started {
            first_id: batch.first_id,
            count: count as u32,
            length: batch.requests.len(),
            signal_every: batch.signal_every,
            mark: None,
        });
        self.is_unannounced = true;
        self.put_mark();
    }

    /// Request `index` of `batch` failed as it was started.
    pub(super) fn failed(&mut self, batch: &Batch<'_>, index: usize, error: &GpuError) {
        self.break_off(&error.to_string());
        self.outstanding += 1;
        self.groups.push_back(Group::Failed(failure(batch.id(index), error)));
    }

    /// Requests `from..to` of `batch` were not started.
    pub(super) fn flushed(&mut self, batch: &Batch<'_>, from: usize, to: usize) {
        if from < to {
            let count = (to - from) as u32;
            self.outstanding += count;
            self.groups.push_back(Group::Flushed { first_id: batch.id(from), count });
        }
    }

    /// Marks the last group, unless all marks are in use: then it is done when a later one is.
    fn put_mark(&mut self) {
        let in_use = self.groups.iter().filter(|group| matches!(group, Group::Started { mark: Some(_), .. }));
        if in_use.count() >= MARKS {
            return;
        }
        let wanted = self.marked % MARKS;
        match self.stream.mark(wanted) {
            Ok(()) => {
                self.marked += 1;
                if let Some(Group::Started { mark, .. }) =
                    self.groups.iter_mut().rev().find(|group| matches!(group, Group::Started { .. }))
                {
                    *mark = Some(wanted);
                }
            }
            Err(error @ GpuError::Lost { .. }) => self.lose(&error),
            Err(error) => self.warn(&error),
        }
    }

    /// Finds out what is over.
    pub(super) fn look(&mut self) {
        loop {
            // A group without a mark of its own is done with the next one that has one: copies are done in order.
            let marked = self.groups.iter().enumerate().find_map(|(place, group)| match group {
                Group::Started { mark: Some(mark), .. } => Some((place, *mark)),
                _ => None,
            });
            match (self.groups.front(), marked) {
                (None, _) => return,
                (Some(Group::Started { .. }), None) => {
                    // The mark could not be put when it was to be: of the last one that was started, for all before.
                    let before = self.marked;
                    self.put_mark();
                    if self.marked == before {
                        return;
                    }
                }
                (Some(Group::Started { .. }), Some((place, mark))) => match self.stream.is_done(mark) {
                    Ok(true) => (0..=place).for_each(|_| self.end_first()),
                    Ok(false) => return,
                    Err(error @ GpuError::Lost { .. }) => self.lose(&error),
                    Err(error) => return self.warn(&error),
                },
                (Some(_), _) => self.end_first(),
            }
        }
    }

    /// Moves completions out; says how many.
    pub(super) fn take(&mut self, out: &mut [Completion]) -> usize {
        let count = out.len().min(self.over.len());
        for (place, completion) in out.iter_mut().zip(self.over.drain(..count)) {
            *place = completion;
        }
        count
    }

    pub(super) fn has_completions(&self) -> bool {
        !self.over.is_empty()
    }

    /// Asks for a notification behind what is under way; false if the runtime makes none.
    pub(super) fn announce(&mut self, notifier: &Arc<Notifier>) -> bool {
        if self.is_unannounced {
            self.is_unannounced = self.stream.notify(notifier).is_err();
        }
        !self.is_unannounced
    }

    fn end_first(&mut self) {
        let Some(group) = self.groups.pop_front() else { return };
        match group {
            Group::Started { first_id, count, length, signal_every, .. } => {
                self.outstanding -= count;
                let is_signaled = |index: &u32| {
                    let count = *index as usize + 1;
                    count == length || count.is_multiple_of(signal_every as usize)
                };
                let ids = (0..count).filter(is_signaled).map(|index| id_of(first_id, index));
                self.over.extend(ids.map(|id| Completion { id, ..Completion::default() }));
            }
            Group::Failed(completion) => {
                self.outstanding -= 1;
                self.over.push_back(completion);
            }
            Group::Flushed { first_id, count } => {
                self.outstanding -= count;
                self.flush(first_id, count);
            }
        }
    }

    fn flush(&mut self, first_id: u64, count: u32) {
        let ids = (0..count).map(|index| id_of(first_id, index));
        let status = CompletionStatus::Flushed;
        self.over.extend(ids.map(|id| Completion { id, status, ..Completion::default() }));
    }

    /// Nothing of the stream runs any more: the first request that is not known to be done fails, and the others are flushed.
    fn lose(&mut self, error: &GpuError) {
        self.break_off(&error.to_string());
        let mut is_first = true;
        for group in std::mem::take(&mut self.groups) {
            match group {
                Group::Started { first_id, count, .. } => {
                    let flushed = if is_first {
                        self.over.push_back(failure(first_id, error));
                        id_of(first_id, 1)
                    } else {
                        first_id
                    };
                    self.flush(flushed, count - u32::from(is_first));
                    is_first = false;
                }
                Group::Failed(completion) if std::mem::take(&mut is_first) => self.over.push_back(completion),
                Group::Failed(Completion { id, .. }) => self.flush(id, 1),
                Group::Flushed { first_id, count } => self.flush(first_id, count),
            }
        }
        self.outstanding = 0;
    }

    fn warn(&mut self, error: &GpuError) {
        if !std::mem::replace(&mut self.has_warned, true) {
            tracing::warn!("cannot tell whether copies are done, asking again until it can be told: {error}");
        }
    }
}

/// The id of a request so many behind the first one of a batch, as [`Batch::id`].
fn id_of(first_id: u64, index: u32) -> u64 {
    first_id >> 32 << 32 | u64::from((first_id as u32).wrapping_add(index))
}

fn failure(id: u64, error: &GpuError) -> Completion {
    let is_lost = matches!(error, GpuError::Lost { .. });
    let status = if is_lost { CompletionStatus::Fatal } else { CompletionStatus::General };
    Completion { id, status, vendor_error: error.code().unsigned_abs() }
}
