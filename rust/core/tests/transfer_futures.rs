//! Transfers as futures: on executors that sleep until they are woken, whatever becomes of the future.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use async_executor::Executor;
use flagcx_p2p::{
    CompletionStatus, Engine, Failure, Opcode, Outcome, RegisteredBuffer, SubmitError, Transfer,
};
use futures_lite::future::block_on;
use support::{LIMIT, Pair, content, eventually, has_faults, pattern};

/// Long enough to be under way when a future of it is polled for the first time.
const DELAYED: &[(&str, &str)] = &[("FLAGCX_P2P_FAULTS", "delay=us:20000")];

#[test]
fn a_future_is_send_and_sync() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<Transfer>();
}

#[test]
fn a_future_answers_that_all_bytes_are_there() {
    const LENGTH: usize = 4 << 20;
    let pair = Pair::new(LENGTH);
    let ours = pattern(1, LENGTH);
    assert!(pair.source.write(0, &ours));
    let write = pair.here.transfer(Opcode::Write, &[pair.iov(0, 0, LENGTH as u64)]).unwrap();
    assert_eq!(block_on(write), Outcome::Done);
    assert!(content(&pair.target) == ours);
    let refused = pair.here.transfer(Opcode::Write, &[] as &[flagcx_p2p::Iov]);
    assert_eq!(refused.unwrap_err(), SubmitError::Empty);
}

#[test]
fn a_future_answers_how_else_a_transfer_ends() {
    if !has_faults() {
        return;
    }
    let run = |faults: &str, meddle: &dyn Fn(&Pair, &Transfer)| {
        let settings = [("FLAGCX_P2P_FAULTS", faults), ("FLAGCX_P2P_XFER_TIMEOUT_MS", "150")];
        let pair = Pair::with(4096, &settings);
        let mut transfer = pair.here.transfer(Opcode::Write, &[pair.iov(0, 0, 4096)]).unwrap();
        // Once with a waker that does nothing: what it waits for is registered.
        let _ = std::pin::Pin::new(&mut transfer).poll(&mut Context::from_waker(Waker::noop()));
        meddle(&pair, &transfer);
        block_on(transfer)
    };
    let failed = run("fail=at:1:remote-access", &|_, _| {});
    assert!(
        matches!(&failed, Outcome::Failed(Failure { iov: 0, status: CompletionStatus::RemoteAccess, .. })),
        "{failed:?}"
    );
    assert_eq!(run("delay=us:5000000", &|_, _| {}), Outcome::TimedOut);
    let cancel = |_: &Pair, transfer: &Transfer| assert!(transfer.cancel());
    assert_eq!(run("delay=us:5000000", &cancel), Outcome::Cancelled);
    assert_eq!(run("delay=us:5000000", &|pair, _| pair.here.close()), Outcome::Cancelled);
    let elsewhere = |pair: &Pair, transfer: &Transfer| {
        let asked = pair.here.wait(transfer.id(), LIMIT);
        assert_eq!(asked, flagcx_p2p::Status::Ended(Outcome::Done));
    };
    assert_eq!(run("delay=us:20000", &elsewhere), Outcome::Done);
}

/// Counts how often it wakes, and unparks no thread.
#[derive(Debug, Default)]
struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Count {
    fn number(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

/// No thread of the program asks about the transfer: the worker's thread moves it, and wakes the task once.
#[test]
fn a_task_is_woken_once_and_by_the_latest_waker() {
    if !has_faults() {
        return;
    }
    let pair = Pair::with(8192, DELAYED);
    assert!(pair.source.write(0, &pattern(2, 8192)));
    let begun = Instant::now();
    let mut transfer = pin!(pair.here.transfer(Opcode::Write, &[pair.iov(0, 0, 8192)]).unwrap());
    let wakers = [Arc::new(Count::default()), Arc::new(Count::default())];
    for waker in &wakers {
        let waker = Waker::from(Arc::clone(waker));
        assert!(transfer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    eventually("the task is woken", || wakers[1].number() > 0);
    // A sleeping waiter would look again after 100 ms.
    assert!(begun.elapsed() < Duration::from_millis(90), "{:?}", begun.elapsed());
    let outcome = transfer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(outcome, Poll::Ready(Outcome::Done));
    assert!(content(&pair.target) == pattern(2, 8192));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(wakers.map(|waker| waker.number()), [0, 1]);
}

/// Thousands of tasks on two threads: each writes its own bytes, reads them back, and finds them.
#[test]
fn thousands_of_transfers_are_under_way_at_once() {
    const TASKS: u64 = 4000;
    const BYTES: u64 = 64;
    let pair = Arc::new(Pair::new((2 * TASKS * BYTES) as usize));
    let executor = Arc::new(Executor::new());
    let tasks: Vec<_> = (0..TASKS)
        .map(|number| {
            let pair = Arc::clone(&pair);
            executor.spawn(async move {
                let (out, back) = (number * BYTES, (TASKS + number) * BYTES);
                let bytes = pattern(number + 1, BYTES as usize);
                assert!(pair.source.write(out as usize, &bytes));
                let write = pair.here.transfer(Opcode::Write, &[pair.iov(out, out, BYTES)]).unwrap();
                assert_eq!(write.await, Outcome::Done);
                let read = pair.here.transfer(Opcode::Read, &[pair.iov(back, out, BYTES)]).unwrap();
                assert_eq!(read.await, Outcome::Done);
                let mut found = vec![0; BYTES as usize];
                assert!(pair.source.read(back as usize, &mut found));
                assert!(found == bytes, "task {number}");
            })
        })
        .collect();
    let all = || async {
        for task in tasks {
            task.await;
        }
    };
    let other = Arc::clone(&executor);
    let (stop, stopped) = futures_channel::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || block_on(other.run(async { stopped.await.is_err() })));
    block_on(executor.run(all()));
    drop(stop);
    assert!(thread.join().unwrap());
}

/// Held by the waker alone once it sleeps: dropped by whichever thread wakes it.
struct Owner {
    owned: Mutex<Option<Owned>>,
    woken: Arc<AtomicU32>,
}

/// Everything that the program has of the engine.
struct Owned {
    _transfer: Transfer,
    _pair: Pair,
    _last: Last,
}

/// Is told whether all was dropped without a panic: 1 if so.
struct Last(Arc<AtomicU32>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.store(1 + u32::from(std::thread::panicking()), Ordering::SeqCst);
    }
}

impl Wake for Owner {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
    }
}

/// A task that is given up by its executor is dropped where it is woken: by the worker's thread, which then drops the
/// connection, the engine, and the pool that it belongs to.
#[test]
fn a_woken_task_may_drop_everything() {
    if !has_faults() {
        return;
    }
    let pair = Pair::with(4096, DELAYED);
    let (engine, connection) = (Arc::downgrade(&pair.client), Arc::downgrade(&pair.here));
    let (woken, dropped) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let owner = Arc::new(Owner { owned: Mutex::new(None), woken: Arc::clone(&woken) });
    let mut transfer = pair.here.transfer(Opcode::Write, &[pair.iov(0, 0, 4096)]).unwrap();
    let waker = Waker::from(Arc::clone(&owner));
    assert!(std::pin::Pin::new(&mut transfer).poll(&mut Context::from_waker(&waker)).is_pending());
    *owner.owned.lock().unwrap() =
        Some(Owned { _transfer: transfer, _pair: pair, _last: Last(Arc::clone(&dropped)) });
    drop((waker, owner));
    eventually("all is dropped", || dropped.load(Ordering::SeqCst) > 0);
    assert_eq!((woken.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst)), (1, 1));
    assert!(engine.upgrade().is_none() && connection.upgrade().is_none());
}

/// Awaited, dropped before or after a poll, cancelled: by several threads at a time, and the memory may be reused at once
/// where the engine says so.
#[test]
fn futures_may_be_dropped_and_cancelled_at_any_time() {
    const THREADS: u64 = 3;
    const ROUNDS: u64 = 300;
    let settings = [("FLAGCX_P2P_FAULTS", "seed=3;delay=us:100;fail=chance:0.02:general")];
    let pair = Pair::with(8192 * THREADS as usize, &settings[usize::from(!has_faults())..]);
    let done = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (pair, done) = (&pair, &done);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let iov = pair.iov(thread * 8192, thread * 8192, 8192);
                    let mut transfer = match pair.here.transfer(Opcode::Write, &[iov]) {
                        Ok(transfer) => transfer,
                        Err(error) => panic!("round {round} of {thread}: {error}"),
                    };
                    if round % 2 == 0 {
                        let _ =
                            std::pin::Pin::new(&mut transfer).poll(&mut Context::from_waker(Waker::noop()));
                    }
                    match round % 8 {
                        0 | 1 => drop(transfer),
                        2 | 3 => {
                            let _ = transfer.cancel();
                            assert_ne!(block_on(transfer), Outcome::TimedOut);
                        }
                        _ => {
                            let is_done = block_on(transfer) == Outcome::Done;
                            done.fetch_add(u32::from(is_done), Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    assert!(done.into_inner() > (THREADS * ROUNDS / 4) as u32);
}

/// What an engine answers once it is closed is answered to a future too.
#[test]
fn a_future_outlives_the_engine() {
    if !has_faults() {
        return;
    }
    let Pair { client, server, here, there, source, target } = Pair::with(4096, DELAYED);
    let keep: (Arc<Engine>, RegisteredBuffer) = (server, target);
    let remote = here.describe_remote(keep.1.address(), 4096).unwrap();
    let iov = flagcx_p2p::Iov { local: source.address(), length: 4096, region: None, remote };
    let transfer = here.transfer(Opcode::Write, &[iov]).unwrap();
    client.close();
    drop((client, here, there, source));
    assert_eq!(block_on(transfer), Outcome::Cancelled);
}
