//! Polling requests.

use std::cell::Cell;

use flagcx_p2p::internals::transfer::{Outcome, Status};

use super::answer::{NetError, answer};
use super::ffi::Answer;
use super::requests::{Poll, REQUESTS};

/// Polls one request and helps it along. `done` frees it; polled again, it is done with 0 bytes, or has failed still.
pub(super) fn test(request: usize, done: &mut bool, bytes: &mut u64) -> Answer {
    *bytes = 0;
    *done = true;
    match poll(request) {
        Poll::Pending => *done = false,
        Poll::Done(moved) => *bytes = moved,
        Poll::Failed => return failed("test"),
        Poll::Inherited => return inherited("test"),
    }
    Answer::Success
}

/// One pass over many requests. Those that have ended become 0 and count, as those do that were 0 before.
pub(super) fn test_batch(requests: &mut [usize], done: &mut [i32], count: &mut i32) -> Answer {
    *count = 0;
    let mut answer = Answer::Success;
    for (request, done) in requests.iter_mut().zip(done) {
        let state = if *request == 0 { Poll::Done(0) } else { poll(*request) };
        *done = i32::from(!matches!(state, Poll::Pending));
        *count += *done;
        if *done != 0 {
            *request = 0;
        }
        match state {
            Poll::Failed => answer = failed("testBatch"),
            Poll::Inherited => answer = inherited("testBatch"),
            Poll::Pending | Poll::Done(_) => {}
        }
    }
    answer
}

fn poll(request: usize) -> Poll {
    let state = REQUESTS.get().poll(request, |request| match request.connection.status(request.transfer) {
        Status::Pending => Poll::Pending,
        Status::Ended(Outcome::Done) => Poll::Done(request.bytes),
        Status::Ended(_) | Status::Unknown => Poll::Failed,
    });
    if state == Poll::Pending {
        yield_now_and_then();
    }
    state
}

fn failed(call: &str) -> Answer {
    answer(call, Err::<(), _>(NetError::internal("a transfer failed, as logged before")), drop)
}

fn inherited(call: &str) -> Answer {
    let reason = "the request was made by a process from which this one was forked, which alone can test it";
    answer(call, Err::<(), _>(NetError::internal(reason)), drop)
}

/// Yields the processor now and then. Callers poll in tight loops that count turns, not time: on a machine with few
/// processors a thread or process that still has work to do for the transfer gets one in between.
fn yield_now_and_then() {
    const TURNS: u32 = 64;
    thread_local!(static PENDING: Cell<u32> = const { Cell::new(0) });
    PENDING.with(|pending| {
        pending.set(pending.get().wrapping_add(1));
        if pending.get() % TURNS == 0 {
            std::thread::yield_now();
        }
    });
}
