#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::fabric::CompletionStatus;
use crate::sync::Arc;
use crate::transfer::TransferId;

/// Two workers end a part each while a caller goes to sleep: the caller always wakes.
#[test]
fn a_sleeper_is_always_woken() {
    // All orders in which threads are interrupted at most three times; without the bound it takes minutes.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let record = Arc::new(TransferRecord::default());
        record.start(2, TimeLimit::NEVER);
        let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
        let workers: Vec<_> = (0..2)
            .map(|worker| {
                let (record, locks) = (record.clone(), locks.clone());
                loom::thread::spawn(move || {
                    let _held = lock(&locks[worker]);
                    record.end_part();
                })
            })
            .collect();
        for worker in locks.iter() {
            let _held = lock(worker);
            record.watch();
        }
        assert!(record.sleep_until_ended(Instant::now() + Duration::from_secs(3600)));
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

/// A part moves to a worker that the caller does not know of, which goes to sleep at any time: it wakes.
#[test]
fn a_sleeper_is_woken_by_a_part_that_has_moved() {
    loom::model(|| {
        let record = Arc::new(TransferRecord::default());
        record.start(1, TimeLimit::NEVER);
        let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
        let mover = {
            let (record, locks) = (record.clone(), locks.clone());
            loom::thread::spawn(move || {
                {
                    let _held = lock(&locks[0]);
                    record.watch();
                }
                record.moves_to(9);
                let _held = lock(&locks[1]);
                record.end_part();
            })
        };
        {
            let _held = lock(&locks[0]);
            record.watch();
        }
        assert!(record.sleep_until_ended(Instant::now() + Duration::from_secs(3600)));
        mover.join().unwrap();
        assert_eq!(record.moved_to(), 1 << 9);
    });
}

/// A transfer ends while a notice of its end is set, and another one takes the record at once: the notice is told once, by
/// the part that ends, by the thread that set it, or by the thread that sets the next one.
#[test]
fn a_notice_is_told_once() {
    use crate::transfer::end_notice::{AtEnd, EndNotice};

    #[derive(Debug, Default)]
    struct Count(AtomicU32);
    impl AtEnd for Count {
        fn ended(self: std::sync::Arc<Self>, state: Option<EndState>) {
            assert_eq!(state, Some(EndState::Done));
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tell(
        record: &TransferRecord,
        worker: &Mutex<()>,
        generation: TransferGeneration,
        count: &std::sync::Arc<Count>,
    ) {
        {
            let _held = lock(worker);
            record.watch();
        }
        let notice = EndNotice::new(TransferId(1), generation, count.clone(), Vec::new());
        record.tell_at_end(Box::new(notice), |_| Some(EndState::Done));
    }

    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (record, worker) = (Arc::new(TransferRecord::default()), Arc::new(Mutex::new(())));
        let counts = [std::sync::Arc::new(Count::default()), std::sync::Arc::new(Count::default())];
        record.start(1, TimeLimit::NEVER);
        let first = record.generation();
        let next = {
            let (record, worker, second) = (record.clone(), worker.clone(), counts[1].clone());
            loom::thread::spawn(move || {
                let end = || {
                    let _held = lock(&worker);
                    record.end_part();
                };
                end();
                record.start(1, TimeLimit::NEVER);
                tell(&record, &worker, record.generation(), &second);
                end();
            })
        };
        tell(&record, &worker, first, &counts[0]);
        next.join().unwrap();
        assert_eq!(counts.map(|count| count.0.load(Ordering::Relaxed)), [1, 1]);
    });
}

/// A failing and a cancelling thread: one end state, and a failure record exactly when it says so.
#[test]
fn one_end_state() {
    loom::model(|| {
        let record = Arc::new(TransferRecord::default());
        record.start(1, TimeLimit::NEVER);
        let other = record.clone();
        let worker = loom::thread::spawn(move || {
            other.fail(RequestFailure {
                iov: 0,
                last_iov: 0,
                status: CompletionStatus::Flushed,
                vendor_error: 0,
                reason: String::new(),
            });
            other.end_part();
        });
        let cancelled = record.condemn(EndState::Cancelled);
        worker.join().unwrap();
        assert!(record.is_ended());
        assert_eq!(record.end_state() == EndState::Cancelled, cancelled);
        assert_eq!(record.failure().is_some(), !cancelled);
    });
}
