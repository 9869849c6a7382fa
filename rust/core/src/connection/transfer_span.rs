//! A span in the log for each transfer, where TRACE is logged: `transfer`, with what was asked for, how it ended and how long
//! it took.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::field::Empty;
use tracing::{Level, Span};

use super::{Connection, TRACED};
use crate::fabric::Opcode;
use crate::pool::{EndState, Worker};
use crate::sync::Ordering;
use crate::transfer::{AtEnd, IovSource, SubmitError, TransferId};

/// Whether connections that are made now have spans for their transfers.
pub(super) fn is_wanted() -> bool {
    tracing::enabled!(Level::TRACE)
}

/// The span of a transfer that is being started.
#[derive(Debug)]
pub(super) struct TransferSpan {
    span: Span,
    begun: Instant,
}

impl Connection {
    /// Begins the span of a transfer over so many lanes; `None` if its connection was made while TRACE was not logged.
    pub(super) fn transfer_span<S: IovSource + ?Sized>(
        &self,
        opcode: Opcode,
        iovs: &S,
        lanes: impl FnOnce() -> usize,
    ) -> Option<TransferSpan> {
        if self.gate.load(Ordering::Relaxed) & TRACED == 0 {
            return None;
        }
        let span = tracing::trace_span!(
            "transfer",
            id = Empty,
            opcode = ?opcode,
            peer = %self.peer.control,
            path = %self.paths,
            bytes = iovs.lengths().sum::<u64>(),
            iovs = iovs.len(),
            lanes = lanes(),
            submit_us = Empty,
            total_us = Empty,
            outcome = Empty,
        );
        (!span.is_disabled()).then(|| TransferSpan { span, begun: Instant::now() })
    }

    /// Has the span ended with its transfer, if that was started, else now.
    pub(super) fn end_span_with(
        &self,
        span: Option<TransferSpan>,
        started: &Result<TransferId, SubmitError>,
    ) {
        let Some(TransferSpan { span, begun }) = span else { return };
        let submitted = begun.elapsed();
        span.record("submit_us", micros(submitted));
        let id = match started {
            Ok(id) => *id,
            Err(error) => return end(&span, submitted, &format!("refused: {error}")),
        };
        span.record("id", id.0);
        // The id has not been answered yet, so nothing has released it.
        let Some(worker) = self.notice_worker().filter(|_| self.context.transfers.find(id).is_some()) else {
            return;
        };
        let ends = SpanEnd { span, begun, worker: Arc::clone(worker) };
        self.tell_at_end(id, Arc::new(ends));
    }

    /// The span of a transfer that the calling thread has copied itself.
    #[cold]
    pub(super) fn span_of_copy<S: IovSource + ?Sized>(&self, opcode: Opcode, iovs: &S, begun: Instant) {
        let total = begun.elapsed();
        if let Some(TransferSpan { span, .. }) = self.transfer_span(opcode, iovs, || 1) {
            span.record("id", TransferId::COMPLETE.0);
            span.record("submit_us", micros(total));
            end(&span, total, name(EndState::Done));
        }
    }
}

/// Ends the span when the transfer ends.
#[derive(Debug)]
struct SpanEnd {
    span: Span,
    begun: Instant,
    worker: Arc<Worker>,
}

impl AtEnd for SpanEnd {
    fn ended(self: Arc<Self>, state: Option<EndState>) {
        let total = self.begun.elapsed();
        // A subscriber is the program's code.
        Arc::clone(&self.worker).run_soon(move || {
            end(&self.span, total, state.map_or("ended, and asked about before this line", name));
        });
    }

    fn stays(&self) -> bool {
        true
    }
}

/// The line at the end makes the span visible where only lines are.
fn end(span: &Span, total: Duration, outcome: &str) {
    span.record("total_us", micros(total));
    span.record("outcome", outcome);
    tracing::trace!(parent: span, "transfer ended");
}

fn name(state: EndState) -> &'static str {
    match state {
        EndState::Done => "done",
        EndState::Failed => "failed",
        EndState::TimedOut => "timed out",
        EndState::Cancelled => "cancelled",
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
