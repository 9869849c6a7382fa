//! Whatever is posted, done, refused or lost: completions come in order, tell the truth, and none is missing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use proptest::prelude::*;

use super::*;
use crate::fabric::{
    Batch, Completion, CompletionQueue, CompletionStatus, Opcode, Sge, WorkQueue, WorkRequest,
};
use crate::gpu::{GpuError, PlayedStreams};

const REQUEST: WorkRequest =
    WorkRequest { remote_address: 4096, rkey: 1, first_sge: 0, origin: 0, sge_count: 1, inline: false };
const ENTRY: Sge = Sge { address: 64, length: 8, lkey: 0 };
const ONE_REQUEST: Batch<'_> = Batch {
    opcode: Opcode::Read,
    first_id: 1,
    signal_every: 1,
    requests: &[REQUEST],
    entries: &[ENTRY],
    one_each: true,
};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A batch of so many requests, every so many of them signaled.
    Post(usize, u32),
    /// The next copy is not started.
    Refuse,
    /// What was started is done, from now on or not.
    Done(bool),
    SetError,
    Lose,
    Poll,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1usize..6, 0u32..4).prop_map(|(count, every)| Step::Post(count, every)),
        1 => Just(Step::Refuse),
        3 => any::<bool>().prop_map(Step::Done),
        1 => Just(Step::SetError),
        1 => Just(Step::Lose),
        4 => Just(Step::Poll),
    ];
    prop::collection::vec(step, 1..60)
}

fn error(lost: bool) -> GpuError {
    let (runtime, operation, code, text) = ("played", "copy", 7, String::new());
    match lost {
        true => GpuError::Lost { runtime, operation, code, text },
        false => GpuError::Call { runtime, operation, code, text },
    }
}

fn poll(queue: &mut GpuCompletionQueue, found: &mut Vec<Completion>) -> usize {
    let mut out = [Completion::default(); 7];
    let count = queue.poll(&mut out).unwrap();
    found.extend_from_slice(&out[..count]);
    count
}

proptest! {
    #[test]
    fn completions_come_in_order_and_none_is_missing(steps in steps(), first: u32) {
        let streams = PlayedStreams::default();
        let mut queue = GpuCompletionQueue::new(1024).unwrap();
        let open = streams.clone();
        let mut pair = GpuWorkQueue::new(queue.streams(), 1024, 1, Box::new(move || open.open())).unwrap();
        let (mut signaled, mut found) = (Vec::new(), Vec::new());
        let mut next = first;
        for step in steps {
            match step {
                Step::Post(count, signal_every) => {
                    let requests = vec![REQUEST; count];
                    let (opcode, first_id) = (Opcode::Write, 5 << 32 | u64::from(next));
                    let entries = &[ENTRY];
                    let batch =
                        Batch { opcode, first_id, signal_every, requests: &requests, entries, one_each: false };
                    prop_assert_eq!(pair.post(&batch).accepted, count);
                    signaled.extend((0..count).map(|index| batch.is_signaled(index)));
                    next = next.wrapping_add(count as u32);
                }
                Step::Refuse => streams.script().refuse = Some(error(false)),
                Step::Done(done) => streams.script().done = done,
                Step::SetError => pair.set_error().unwrap(),
                Step::Lose => streams.script().answer = Some(error(true)),
                Step::Poll => drop(poll(&mut queue, &mut found)),
            }
        }
        streams.script().done = true;
        while poll(&mut queue, &mut found) > 0 {}
        let place = |completion: &Completion| {
            assert_eq!(completion.id >> 32, 5);
            (completion.id as u32).wrapping_sub(first) as usize
        };
        prop_assert!(found.is_sorted_by(|one, two| place(one) < place(two)), "{:?}", found);
        let failed = found.iter().find(|completion| completion.status != CompletionStatus::Success);
        let failed = failed.map_or(signaled.len(), place);
        for (index, &is_signaled) in signaled.iter().enumerate() {
            let told = found.iter().find(|completion| place(completion) == index);
            match told {
                Some(told) if index < failed => {
                    prop_assert!(is_signaled && told.status == CompletionStatus::Success);
                }
                Some(told) if index > failed => prop_assert_eq!(told.status, CompletionStatus::Flushed),
                Some(_) => {}
                None => prop_assert!(index < failed && !is_signaled, "request {} is not told of", index),
            }
        }
        prop_assert!(failed == signaled.len() || pair.is_broken());
        drop(pair);
        prop_assert_eq!(streams.script().live, 0, "the stream is given back");
    }
}

/// Armed, it wakes its sleeper soon although the runtime makes no call.
#[test]
fn a_timer_stands_in_for_the_runtimes_call() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let streams = PlayedStreams::default();
    let mut queue = GpuCompletionQueue::new(16).unwrap();
    let open = streams.clone();
    let mut pair = GpuWorkQueue::new(queue.streams(), 16, 1, Box::new(move || open.open())).unwrap();
    let readable = |queue: &GpuCompletionQueue, milliseconds: i64| {
        let limit = Timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
        poll(&mut [PollFd::from_borrowed_fd(queue.fd(), PollFlags::IN)], Some(&limit)).unwrap() > 0
    };
    assert_eq!(queue.arm().ok(), Some(true));
    assert!(!readable(&queue, 5), "nothing is under way");
    assert_eq!(pair.post(&ONE_REQUEST).accepted, 1);
    assert_eq!(queue.arm().ok(), Some(true));
    assert!(readable(&queue, 900));
    queue.acknowledge().unwrap();
    assert!(!readable(&queue, 5), "once for each arming");
    streams.script().done = true;
    assert_eq!(queue.arm().ok(), Some(false), "there is something to poll");
}

/// Copies under way outlive their queue: the stream is given back when they are done, and not before.
#[test]
fn a_dropped_queue_keeps_its_stream_until_its_copies_are_done() {
    let streams = PlayedStreams::default();
    let mut queue = GpuCompletionQueue::new(16).unwrap();
    let open = streams.clone();
    let mut pair = GpuWorkQueue::new(queue.streams(), 16, 1, Box::new(move || open.open())).unwrap();
    assert_eq!(pair.post(&ONE_REQUEST).accepted, 1);
    drop(pair);
    let mut found = Vec::new();
    assert_eq!((poll(&mut queue, &mut found), streams.script().live), (0, 1));
    streams.script().done = true;
    assert_eq!((poll(&mut queue, &mut found), streams.script().live), (0, 0));
}
