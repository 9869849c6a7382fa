//! The calls that start transfers, each of them checked to leave the caller's context as it was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::{Connection, Remote, Request, WhenFull};
use flagcx_p2p::internals::engine::Engine;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange, Status, SubmitError, TransferId};

use super::memory::{Registered, keeps};
use crate::support::{self, LIMIT};

/// A call that starts a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Submit,
    TrySubmit,
    Route,
    SubmitAndWait,
}

impl Call {
    pub const ALL: [Self; 4] = [Self::Submit, Self::TrySubmit, Self::Route, Self::SubmitAndWait];

    pub fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::TrySubmit => "try_submit",
            Self::Route => "route",
            Self::SubmitAndWait => "submit_and_wait",
        }
    }

    /// Starts a transfer.
    pub fn start(
        self,
        connection: &Connection,
        opcode: Opcode,
        iovs: &[Iov],
    ) -> Result<TransferId, SubmitError> {
        keeps(self.name(), || match self {
            Self::Submit => connection.submit(opcode, iovs),
            Self::TrySubmit => connection.try_submit(opcode, iovs),
            Self::Route => {
                let (remote, when_full) = (Remote::Described, WhenFull::Wait);
                connection.start(&Request { opcode, iovs, remote, when_full, at_once: false })
            }
            Self::SubmitAndWait => connection.submit_and_wait(opcode, iovs).map(|()| TransferId::COMPLETE),
        })
    }

    /// Starts a transfer, and waits for its end.
    pub fn carry(
        self,
        connection: &Connection,
        opcode: Opcode,
        iovs: &[Iov],
    ) -> Result<Outcome, SubmitError> {
        self.start(connection, opcode, iovs).map(|id| finish(connection, id))
    }
}

/// Waits for a transfer.
pub fn finish(connection: &Connection, id: TransferId) -> Outcome {
    keeps("wait", || support::outcome(connection, id))
}

/// The same by asking again and again, as callers of `flagcxP2pEngineXferStatus` do.
pub fn poll(connection: &Connection, id: TransferId) -> Outcome {
    let start = Instant::now();
    loop {
        match keeps("status", || connection.status(id)) {
            Status::Ended(outcome) => return outcome,
            other => assert!(start.elapsed() < LIMIT, "{id:?} is {other:?} after {LIMIT:?}"),
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

/// Two engines of this process, connected.
#[derive(Debug)]
pub struct Engines {
    pub client: Arc<Engine>,
    pub server: Arc<Engine>,
    pub here: Arc<Connection>,
    pub there: Arc<Connection>,
}

impl Engines {
    pub fn new() -> Self {
        let (client, server) = (support::engine(&[]), support::engine(&[]));
        let (here, there) = keeps("connect", || support::connect(&client, &server));
        Self { client, server, here, there }
    }

    /// The same where the driver may not be loaded yet, so that there is no context to look at.
    pub fn without_driver() -> Self {
        let (client, server) = (support::engine(&[]), support::engine(&[]));
        let (here, there) = support::connect(&client, &server);
        Self { client, server, here, there }
    }

    /// A piece between two registered ranges.
    pub fn iov(&self, local: (&Registered, u64), remote: (&Registered, u64), length: u64) -> Iov {
        let remote = self.describe(remote.0, remote.1, length);
        Iov { local: local.0.memory.address + local.1, length, region: Some(local.0.region), remote }
    }

    fn describe(&self, remote: &Registered, offset: u64, length: u64) -> RemoteRange {
        self.server.describe(remote.region, remote.memory.address + offset, length).unwrap()
    }
}
