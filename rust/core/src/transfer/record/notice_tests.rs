//! What notices of the end are told, where the record is used again at once: by a caller that was quicker than the thread that ended
//! the transfer.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::fabric::CompletionStatus;
use crate::transfer::TransferId;
use crate::transfer::end_notice::AtEnd;
use std::sync::Arc;

/// What it was told.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<Option<EndState>>>);

impl AtEnd for Told {
    fn ended(self: Arc<Self>, state: Option<EndState>) {
        lock(&self.0).push(state);
    }
}

fn failure() -> RequestFailure {
    RequestFailure {
        iov: 0,
        last_iov: 0,
        status: CompletionStatus::General,
        vendor_error: 0,
        reason: String::new(),
    }
}

/// Has it told of the present generation. What ends it earlier is not remembered.
fn tell(record: &TransferRecord, at_end: Arc<dyn AtEnd>) {
    record.tell_at_end(
        Box::new(EndNotice::new(TransferId(1), record.generation(), at_end, Vec::new())),
        |_| None,
    );
}

#[cfg(not(flagcx_p2p_loom))]
mod alone {
    use super::*;

    /// Does what another thread may do by then.
    #[derive(Debug)]
    struct UseAgain(&'static TransferRecord);

    impl AtEnd for UseAgain {
        fn ended(self: Arc<Self>, _state: Option<EndState>) {
            assert!(self.0.is_ended());
            self.0.start(1, TimeLimit::NEVER);
        }

        fn stays(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_notice_is_told_the_end_of_its_own_transfer() {
        for end in [EndState::Done, EndState::Failed] {
            let (record, told) = (TransferRecord::lasting(), Arc::new(Told::default()));
            record.start(1, TimeLimit::NEVER);
            record.watch();
            tell(record, Arc::new(UseAgain(record)));
            tell(record, told.clone());
            if end == EndState::Failed {
                record.fail(failure());
            }
            record.end_part();
            assert_eq!(*lock(&told.0), [Some(end)]);
            assert!(!record.is_ended(), "the next transfer is under way");
            record.end_part();
        }
    }

    #[test]
    fn a_notice_that_another_transfer_finds_is_told_what_is_remembered() {
        let (record, told) = (TransferRecord::lasting(), Arc::new(Told::default()));
        record.start(1, TimeLimit::NEVER);
        // It is not watched: the part that ends looks for no notice.
        let late = EndNotice::new(TransferId(7), record.generation(), told.clone(), Vec::new());
        record.end_part();
        record.start(1, TimeLimit::NEVER);
        record.tell_at_end(Box::new(late), |id| (id == TransferId(7)).then_some(EndState::TimedOut));
        assert_eq!(*lock(&told.0), [Some(EndState::TimedOut)]);
        record.end_part();
    }
}

#[cfg(flagcx_p2p_loom)]
mod models {
    use super::*;

    /// Two workers end a part each, one as failed; the caller that waits for the end begins the next transfer in the record. The
    /// notice is told once, of the failure.
    #[test]
    fn a_notice_is_told_the_end_of_its_own_transfer() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let record = crate::sync::Arc::new(TransferRecord::default());
            let told = Arc::new(Told::default());
            record.start(2, TimeLimit::NEVER);
            record.watch();
            tell(&record, told.clone());
            let workers = [false, true].map(|fails| {
                let record = record.clone();
                loom::thread::spawn(move || {
                    if fails {
                        record.fail(failure());
                    }
                    record.end_part();
                })
            });
            assert!(record.sleep_until_ended(Instant::now() + Duration::from_secs(3600)));
            record.start(1, TimeLimit::NEVER);
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            assert_eq!(*lock(&told.0), [Some(EndState::Failed)]);
        });
    }
}
