//! All ids of an engine's transfers are in use: what calls that start one do.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::time::{Duration, Instant};

use super::test_pair::TestPair;
use super::*;
use crate::fabric::Opcode;
use crate::transfer::{Iov, MOST_TRANSFERS, NewTransfer, Outcome, Status, SubmitError};

const LIMIT: Duration = Duration::from_millis(500);

/// Two engines, each with 4 KiB.
struct Pair {
    client: Arc<Engine>,
    here: Arc<Connection>,
    source: RegisteredBuffer,
    target: RegisteredBuffer,
    _server: Arc<Engine>,
}

impl Pair {
    fn new() -> Self {
        let limit = LIMIT.as_millis().to_string();
        let TestPair { client, server, here, source, target } =
            TestPair::new(&[("FLAGCX_P2P_XFER_TIMEOUT_MS", &limit)], "");
        Self { client, here, source, target, _server: server }
    }

    fn iov(&self) -> [Iov; 1] {
        let remote = self.here.describe_remote(self.target.address(), 4096).unwrap();
        // Without bytes: such a transfer has an id, where small ones of this fabric end in the call.
        [Iov { local: self.source.address(), length: 0, region: Some(self.source.region()), remote }]
    }

    /// Takes all ids that are left.
    fn take_all(&self) -> Vec<NewTransfer> {
        std::iter::from_fn(|| self.client.context().unwrap().transfers.acquire()).collect()
    }

    fn release(&self, transfer: NewTransfer) {
        self.client.context().unwrap().transfers.release_new(transfer);
    }
}

#[test]
fn a_call_waits_for_an_id_until_one_is_free_or_its_time_is_over() {
    let pair = Pair::new();
    let (here, iov) = (&pair.here, pair.iov());
    assert!(pair.source.write(0, &[7; 4096]));
    let ended = here.try_submit(Opcode::Write, &iov).unwrap();
    let mut taken = pair.take_all();
    assert_eq!(taken.len() + 1, MOST_TRANSFERS);

    // No thread asks about any.
    assert_eq!(here.try_submit(Opcode::Write, &iov), Err(SubmitError::WouldBlock));
    let start = Instant::now();
    let refused = here.submit(Opcode::Write, &iov).unwrap_err();
    assert_eq!(refused, SubmitError::NoId { most: MOST_TRANSFERS, waited: LIMIT });
    assert!(start.elapsed() >= LIMIT, "waited {:?}", start.elapsed());
    let text = refused.to_string();
    assert!(text.contains("1048512") && text.contains("XferStatus"), "{text}");

    // One does while the call waits.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| here.submit(Opcode::Write, &iov));
        std::thread::sleep(LIMIT / 10);
        assert!(!waiting.is_finished());
        assert_eq!(here.wait(ended, LIMIT), Status::Ended(Outcome::Done));
        let id = waiting.join().unwrap().unwrap();
        taken.extend(pair.take_all());
        // The call's own id is free again now, for itself.
        assert_eq!(here.wait(id, LIMIT), Status::Ended(Outcome::Done));
        assert!(here.try_submit(Opcode::Write, &iov).is_ok());
    });

    // The connection is closed while one waits.
    taken.extend(pair.take_all());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| here.submit(Opcode::Write, &iov));
        std::thread::sleep(LIMIT / 10);
        here.close();
        let refused = waiting.join().unwrap();
        assert!(matches!(refused, Err(SubmitError::Down { .. })), "{refused:?}");
    });
    taken.into_iter().for_each(|transfer| pair.release(transfer));
}
