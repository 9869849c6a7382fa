//! Two engines, a connection with rails, and the ways to start a transfer and to wait for its end.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::Engine;
use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::{Iov, Outcome, RemoteRange, Status, SubmitError, TransferId};

use crate::nics::{ENOUGH, make_rails};
use crate::support::{self, LIMIT, eventually};
use crate::window::Window;

/// Short transfers take several rails too.
pub(crate) const SETTINGS: &[(&str, &str)] =
    &[("FLAGCX_P2P_XFER_TIMEOUT_MS", "10000"), ("FLAGCX_P2P_RAIL_MIN_BYTES", "4096")];

pub(crate) struct Bench {
    pub(crate) here: Arc<Connection>,
    pub(crate) client: Arc<Engine>,
    pub(crate) server: Arc<Engine>,
    /// WRITEs are flushed by a READ, so memory that is for WRITEs may be read.
    pub(crate) is_flushed: bool,
    _there: Arc<Connection>,
    turn: Cell<usize>,
    case: RefCell<String>,
}

/// A call that waits, one that asks for one, one that asks for many.
const WAYS: usize = 4;

impl Bench {
    /// With `count` rails.
    pub(crate) fn new(client: Arc<Engine>, server: Arc<Engine>, count: usize) -> Self {
        let ends = support::connect(&client, &server);
        Self::over(client, server, ends, count)
    }

    /// As between processes: in one process the copy engine of a GPU would move its memory.
    #[cfg(feature = "verbs")]
    pub(crate) fn as_of_two_processes(client: Arc<Engine>, server: Arc<Engine>, count: usize) -> Self {
        let ends = connect_as_of_two_processes(&client, &server);
        Self::over(client, server, ends, count)
    }

    fn over(
        client: Arc<Engine>,
        server: Arc<Engine>,
        (here, there): (Arc<Connection>, Arc<Connection>),
        count: usize,
    ) -> Self {
        let (near, far) = (client.allocate(ENOUGH).unwrap(), server.allocate(ENOUGH).unwrap());
        make_rails(&here, &near, far.address(), count);
        let case = RefCell::new(String::new());
        Self { here, client, server, is_flushed: false, _there: there, turn: Cell::new(0), case }
    }

    pub(crate) fn set_case(&self, case: String) {
        *self.case.borrow_mut() = case;
    }

    pub(crate) fn case(&self) -> String {
        self.case.borrow().clone()
    }

    /// Where a peer's memory is, once that is known here: another region may have been at the same place before.
    pub(crate) fn remote(&self, far: &Window, offset: u64, length: u64) -> RemoteRange {
        let address = far.address() + offset;
        let expected = self.server.describe(far.region, far.address(), length.max(1)).unwrap().rkey;
        let mut found = None;
        eventually("the peer's region is known", || {
            found = self.here.describe_remote(address, length as u32).filter(|range| range.rkey == expected);
            found.is_some()
        });
        found.unwrap()
    }

    /// Of `(near offset, far offset, length)`.
    pub(crate) fn iov(&self, near: &Window, far: &Window, piece: (u64, u64, u64)) -> Iov {
        let (from, to, length) = piece;
        let remote = self.remote(far, to, length);
        Iov { local: near.address() + from, length, region: Some(near.region), remote }
    }

    /// Runs a transfer through each way in turn; how it ends.
    pub(crate) fn run(&self, opcode: Opcode, iovs: &[Iov]) -> Result<Outcome, SubmitError> {
        let way = self.turn.get() % WAYS;
        self.turn.set(way + 1);
        let id = self.start(way, opcode, iovs)?;
        Ok(self.end(way, id))
    }

    /// The same, which must be done.
    pub(crate) fn done(&self, opcode: Opcode, iovs: &[Iov]) {
        let ended = self.run(opcode, iovs);
        assert!(
            matches!(ended, Ok(Outcome::Done)),
            "{}: {opcode:?}: {ended:?}: {:#?}",
            self.case(),
            self.here.rails()
        );
    }

    fn start(&self, way: usize, opcode: Opcode, iovs: &[Iov]) -> Result<TransferId, SubmitError> {
        let begin = Instant::now();
        loop {
            let started = match way % 2 {
                0 => self.here.submit(opcode, iovs),
                _ => self.here.try_submit(opcode, iovs),
            };
            match started {
                Err(SubmitError::WouldBlock) if begin.elapsed() < LIMIT => std::thread::yield_now(),
                other => return other,
            }
        }
    }

    pub(crate) fn end(&self, way: usize, id: TransferId) -> Outcome {
        let begin = Instant::now();
        while begin.elapsed() < LIMIT {
            let status = match way {
                0 => self.here.wait(id, LIMIT),
                1 => self.here.status(id),
                2 => self.here.wait(id, Duration::from_millis(1)),
                _ => {
                    let mut ended = [None];
                    self.here.test_batch(&[id], &mut ended);
                    ended[0].take().unwrap_or(Status::Pending)
                }
            };
            match status {
                Status::Ended(outcome) => return outcome,
                Status::Pending => std::thread::yield_now(),
                Status::Unknown => panic!("{}: an id that was just given out is unknown", self.case()),
            }
        }
        panic!("{}: a transfer does not end: {:#?}", self.case(), self.here.rails())
    }

    /// What a case has broken is whole again, on the rails that can be: the connection lives, and the first rail's lanes work.
    pub(crate) fn expect_recovery(&self) {
        assert!(self.here.is_usable(), "{}: the connection has ended", self.case());
        eventually("a rail has all of its lanes", || {
            self.here.rails().iter().any(|rail| rail.healthy_lanes == rail.lanes)
        });
    }
}

/// The ends of a connection that is not said to be in one process.
#[cfg(feature = "verbs")]
pub(crate) fn connect_as_of_two_processes(
    client: &Arc<Engine>,
    server: &Arc<Engine>,
) -> (Arc<Connection>, Arc<Connection>) {
    let of_thread = Arc::clone(server);
    let accepting = std::thread::spawn(move || of_thread.accept().unwrap().connection);
    let here = client.connect(&server.address().to_string(), server.rpc_port().unwrap(), 0, false).unwrap();
    (here, accepting.join().unwrap())
}
