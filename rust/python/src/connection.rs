//! Connections.

use std::sync::Arc;

use flagcx_p2p::{Connection as CoreConnection, Iov, Opcode, PathKind, TransferId};
use pyo3::exceptions::{PyBaseException, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::asking;
use crate::local::Local;
use crate::named::NamedTuple;
use crate::note::Note;
use crate::number::{self, Number};
use crate::pieces::{self, RemoteKeys};
use crate::prepared::Prepared;
use crate::shared::Shared;
use crate::transfer::{self, Transfer};
use crate::{operation, sending, single, waiting};

/// A connection to one peer, of `Engine.connect`. Any method may be called from any thread.
///
/// The calls that move bytes come in three forms: `write` and `read` move one range, `write_many` and `read_many` many and wait, `start_write`
/// and `start_read` many without waiting. Many ranges are named by a sequence of Piece, or by three columns: local addresses, the peer's
/// addresses, and lengths in bytes. A column is a one-dimensional array of 64-bit whole numbers (numpy.uint64, numpy.int64,
/// array.array("Q")), a sequence of numbers, or one number for all pieces. Local addresses must lie in regions of the connection's engine.
/// A piece may have any length, also 4 GiB and more, and 0.
///
/// The peer must have registered the ranges, before or after the connect; calls that wait or are awaited find what it registered before
/// the call, also memory that it has deregistered and registered again just before. Nothing is moved unless every piece is valid. Errors:
/// TypeError and ValueError for arguments, with the column or the piece; P2pError for what the engine refuses; TransferFailed, or a kind of it, for a
/// transfer that has begun.
#[pyclass(frozen, module = "flagcx_p2p", weakref)]
#[derive(Debug)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
    core: Arc<CoreConnection>,
}

type Argument<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, core: Arc<CoreConnection>) -> Self {
        Self { shared, core }
    }

    /// One piece, of a region or a slice of one.
    fn one(
        &self,
        local: &Bound<'_, PyAny>,
        remote: Number,
        offset: Number,
        size: Option<Number>,
    ) -> PyResult<Iov> {
        self.shared.core()?;
        let local_range = Local::of(local, &self.shared, offset.0, size.map(|size| size.0))?;
        let remote = RemoteKeys::new(&self.core).find(local.py(), remote.0, local_range.size)?;
        Ok(Iov {
            local: local_range.address,
            length: local_range.size,
            region: Some(local_range.region),
            remote,
        })
    }

    fn many(
        &self,
        local: &Bound<'_, PyAny>,
        remote: Argument<'_, '_>,
        length: Argument<'_, '_>,
    ) -> PyResult<Vec<Iov>> {
        self.shared.core()?;
        pieces::of_call(&self.core, &self.shared, local, (remote, length))
    }

    fn run(&self, py: Python<'_>, opcode: Opcode, iovs: &mut [Iov], timeout: Option<f64>) -> PyResult<()> {
        operation::run_found(py, &self.shared, &self.core, opcode, iovs, timeout)
    }

    fn start(
        &self,
        py: Python<'_>,
        opcode: Opcode,
        mut iovs: Vec<Iov>,
        block: bool,
        notify: Option<Note>,
    ) -> PyResult<Transfer> {
        let start = || operation::start_found(py, &self.core, opcode, &mut iovs, block);
        let transfer = transfer::begin(py, &self.shared, &self.core, start, notify)?;
        Ok(transfer.with_found(opcode, iovs))
    }

    /// Starts one without waiting for room. `None` if the peer must be asked first, and may not.
    fn start_at_once(
        &self,
        py: Python<'_>,
        opcode: Opcode,
        iovs: Vec<Iov>,
        asks: bool,
    ) -> PyResult<Option<Transfer>> {
        if asks {
            return self.start(py, opcode, iovs, false, None).map(Some);
        }
        let start = || operation::start(py, &self.core, opcode, &iovs, false);
        match transfer::begin(py, &self.shared, &self.core, start, None) {
            Ok(transfer) => Ok(Some(transfer.with_found(opcode, iovs))),
            Err(failed) if failed.may_be_of_key => Ok(None),
            Err(failed) => Err(failed.error),
        }
    }
}

impl Connection {
    /// The coroutine of a transfer, which the method `begin` begins with `arguments`.
    fn moved<'py>(
        slf: &Bound<'py, Self>,
        begin: &str,
        arguments: impl IntoPyObject<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        static MOVE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        slf.get().shared.core()?;
        let timeout = waiting::seconds(timeout)?;
        MOVE.import(slf.py(), "flagcx_p2p._asyncio", "move")?.call1((slf.getattr(begin)?, arguments, timeout))
    }
}

#[pymethods]
impl Connection {
    /// Writes `size` bytes of `local` from `offset` on to the peer's memory at `remote_address`; they are there when this returns.
    ///
    /// `local`: a Region, a slice of one, or SharedMemory. Without `size`, to its end. `timeout`: seconds. When they have passed the
    /// transfer is stopped, and TransferTimedOut raised. Ctrl-C stops it as well, as any exception of a signal handler does, within a
    /// fraction of a second. Whatever is raised, nothing touches the region's memory for this call any more, and the peer's range holds
    /// anything. Without `timeout`, FLAGCX_P2P_XFER_TIMEOUT_MS bounds it.
    #[pyo3(signature = (local, remote_address, offset = Number(0), size = None, *, timeout = None),
           text_signature = "($self, local, remote_address, offset=0, size=None, *, timeout=None)")]
    fn write(
        &self,
        local: &Bound<'_, PyAny>,
        remote_address: Number,
        offset: Number,
        size: Option<Number>,
        #[pyo3(from_py_with = number::timeout)] timeout: Option<f64>,
    ) -> PyResult<()> {
        let iov = self.one(local, remote_address, offset, size)?;
        self.run(local.py(), Opcode::Write, &mut [iov], timeout)
    }

    /// Reads `size` bytes of the peer's memory at `remote_address` into `local` from `offset` on; they are there when this returns.
    ///
    /// Arguments and errors are those of `write`.
    #[pyo3(signature = (local, remote_address, offset = Number(0), size = None, *, timeout = None),
           text_signature = "($self, local, remote_address, offset=0, size=None, *, timeout=None)")]
    fn read(
        &self,
        local: &Bound<'_, PyAny>,
        remote_address: Number,
        offset: Number,
        size: Option<Number>,
        #[pyo3(from_py_with = number::timeout)] timeout: Option<f64>,
    ) -> PyResult<()> {
        let iov = self.one(local, remote_address, offset, size)?;
        self.run(local.py(), Opcode::Read, &mut [iov], timeout)
    }

    /// Writes many ranges as one transfer, and waits for it. No pieces are none to wait for. `timeout` and Ctrl-C: as in `write`.
    ///
    /// write_many(pieces), or write_many(local, remote, length) with columns: see the class.
    #[pyo3(signature = (local, remote = None, length = None, *, timeout = None))]
    fn write_many(
        &self,
        local: &Bound<'_, PyAny>,
        remote: Argument<'_, '_>,
        length: Argument<'_, '_>,
        #[pyo3(from_py_with = number::timeout)] timeout: Option<f64>,
    ) -> PyResult<()> {
        self.run(local.py(), Opcode::Write, &mut self.many(local, remote, length)?, timeout)
    }

    /// Reads many ranges as one transfer, and waits for it. No pieces are none to wait for. `timeout` and Ctrl-C: as in `write`.
    ///
    /// read_many(pieces), or read_many(local, remote, length) with columns: see the class.
    #[pyo3(signature = (local, remote = None, length = None, *, timeout = None))]
    fn read_many(
        &self,
        local: &Bound<'_, PyAny>,
        remote: Argument<'_, '_>,
        length: Argument<'_, '_>,
        #[pyo3(from_py_with = number::timeout)] timeout: Option<f64>,
    ) -> PyResult<()> {
        self.run(local.py(), Opcode::Read, &mut self.many(local, remote, length)?, timeout)
    }

    /// Starts writing many ranges as one transfer, and answers that without waiting for its end.
    ///
    /// start_write(pieces), or start_write(local, remote, length) with columns: see the class; at least one piece. The memory must
    /// stay as it is until the transfer has ended. Where there is no room for another transfer this waits for it, for 30 s at most, or
    /// raises QueueFull at once with `block=False`.
    ///
    /// `notify`: a pair of name and content, as the arguments of `notify`, of a notification that the peer gets once the bytes are there, without anybody waiting
    /// for it, and never if the transfer fails or is cancelled. It is checked before anything is started. One thread of the engine sends them all, those to one peer in the order in which the transfers end. A peer that
    /// does not read for 5 s loses it: an event `notification_dropped` and a line of the log, and `Transfer.notified` is False.
    #[pyo3(signature = (local, remote = None, length = None, *, block = true, notify = None))]
    fn start_write(
        &self,
        local: &Bound<'_, PyAny>,
        remote: Argument<'_, '_>,
        length: Argument<'_, '_>,
        block: bool,
        notify: Option<Note>,
    ) -> PyResult<Transfer> {
        self.start(local.py(), Opcode::Write, self.many(local, remote, length)?, block, notify)
    }

    /// Starts reading many ranges as one transfer, and answers that without waiting for its end. Arguments and errors are those of
    /// `start_write`.
    #[pyo3(signature = (local, remote = None, length = None, *, block = true, notify = None))]
    fn start_read(
        &self,
        local: &Bound<'_, PyAny>,
        remote: Argument<'_, '_>,
        length: Argument<'_, '_>,
        block: bool,
        notify: Option<Note>,
    ) -> PyResult<Transfer> {
        self.start(local.py(), Opcode::Read, self.many(local, remote, length)?, block, notify)
    }

    /// `await connection.write_async(...)`: as `write`, for asyncio; the bytes are there when it returns.
    ///
    /// Never blocks the loop: it waits for room in a full queue by a timer of 0.2 to 5 ms, one for all calls that wait for this
    /// connection in this loop, in the order in which they came, and for 30 s at most (`QueueFull`). The peer is asked for a
    /// region that was registered later by a thread of the loop's executor, once. `timeout`: seconds; when it passes the transfer
    /// is cancelled and `TransferTimedOut` is raised. Cancelling the task cancels the transfer. Either way nothing touches the
    /// memory any more when the exception comes.
    #[pyo3(signature = (local, remote_address, offset = Number(0), size = None, *, timeout = None),
           text_signature = "($self, local, remote_address, offset=0, size=None, *, timeout=None)")]
    fn write_async<'py>(
        slf: &Bound<'py, Self>,
        local: &Bound<'py, PyAny>,
        remote_address: Number,
        offset: Number,
        size: Option<Number>,
        #[pyo3(from_py_with = number::timeout)] timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let arguments = (true, local, remote_address.0, offset.0, size.map(|size| size.0));
        Self::moved(slf, "_begin_one", arguments, timeout)
    }

    /// `await connection.write_many_async(...)`: as `write_many`, for asyncio; see `write_async`.
    #[pyo3(signature = (local, remote = None, length = None, *, timeout = None))]
    fn write_many_async<'py>(
        slf: &Bound<'py, Self>,
        local: &Bound<'py, PyAny>,
        remote: Argument<'_, 'py>,
        length: Argument<'_, 'py>,
        #[pyo3(from_py_with = number::timeout)] timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::moved(slf, "_begin_many", (true, local, remote, length), timeout)
    }

    /// `await connection.read_async(...)`: as `read`, for asyncio; see `write_async`.
    #[pyo3(signature = (local, remote_address, offset = Number(0), size = None, *, timeout = None),
           text_signature = "($self, local, remote_address, offset=0, size=None, *, timeout=None)")]
    fn read_async<'py>(
        slf: &Bound<'py, Self>,
        local: &Bound<'py, PyAny>,
        remote_address: Number,
        offset: Number,
        size: Option<Number>,
        #[pyo3(from_py_with = number::timeout)] timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let arguments = (false, local, remote_address.0, offset.0, size.map(|size| size.0));
        Self::moved(slf, "_begin_one", arguments, timeout)
    }

    /// `await connection.read_many_async(...)`: as `read_many`, for asyncio; see `read_async`.
    #[pyo3(signature = (local, remote = None, length = None, *, timeout = None))]
    fn read_many_async<'py>(
        slf: &Bound<'py, Self>,
        local: &Bound<'py, PyAny>,
        remote: Argument<'_, 'py>,
        length: Argument<'_, 'py>,
        #[pyo3(from_py_with = number::timeout)] timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Self::moved(slf, "_begin_many", (false, local, remote, length), timeout)
    }

    /// Starts a transfer of one piece without waiting for room. `None` if the peer must be asked first, and may not.
    #[pyo3(name = "_begin_one")]
    fn begin_one(
        &self,
        asks: bool,
        write: bool,
        local: &Bound<'_, PyAny>,
        remote: u64,
        offset: u64,
        size: Option<u64>,
    ) -> PyResult<Option<Transfer>> {
        let find = || self.one(local, Number(remote), Number(offset), size.map(Number));
        let iov = if asks { Some(find()?) } else { asking::without(find)? };
        match iov {
            Some(iov) => self.start_at_once(local.py(), opcode(write), vec![iov], asks),
            None => Ok(None),
        }
    }

    /// As `_begin_one`, of many pieces.
    #[pyo3(name = "_begin_many")]
    fn begin_many(
        &self,
        asks: bool,
        write: bool,
        local: &Bound<'_, PyAny>,
        remote: Argument<'_, '_>,
        length: Argument<'_, '_>,
    ) -> PyResult<Option<Transfer>> {
        let find = || self.many(local, remote, length);
        let iovs = if asks { Some(find()?) } else { asking::without(find)? };
        match iovs {
            None => Ok(None),
            // Nothing is done without pieces.
            Some(iovs) if iovs.is_empty() => {
                Ok(Some(Transfer::new(Arc::clone(&self.core), TransferId::COMPLETE)))
            }
            Some(iovs) => self.start_at_once(local.py(), opcode(write), iovs, asks),
        }
    }

    /// The `TransferTimedOut` of a transfer that was stopped after so many seconds; without one, of one that could not be started.
    #[pyo3(name = "_timed_out")]
    fn timed_out(&self, py: Python<'_>, transfer: Option<&Transfer>, seconds: f64) -> Py<PyBaseException> {
        let error = match transfer {
            Some(transfer) => operation::not_over(py, &self.core, transfer.number(), seconds),
            None => operation::not_started(py, &self.core),
        };
        error.into_value(py)
    }

    /// A transfer that can be made many times, of the same pieces: `operation` is "read" or "write".
    ///
    /// prepare(operation, pieces), or prepare(operation, local, remote, length) with columns: see the class. Nothing is moved yet.
    #[pyo3(signature = (operation, local, remote = None, length = None))]
    fn prepare(
        &self,
        operation: &str,
        local: &Bound<'_, PyAny>,
        remote: Argument<'_, '_>,
        length: Argument<'_, '_>,
    ) -> PyResult<Prepared> {
        let opcode = match operation {
            "read" => Opcode::Read,
            "write" => Opcode::Write,
            other => {
                return Err(PyValueError::new_err(format!(
                    "operation is \"read\" or \"write\", got {other:?}"
                )));
            }
        };
        let iovs = self.many(local, remote, length)?;
        let (shared, connection) = (Arc::clone(&self.shared), Arc::clone(&self.core));
        Ok(Prepared { shared, connection, opcode, iovs })
    }

    /// Sends a notification: a name of at most 256 bytes without a NUL, and a content, each bytes or another buffer.
    ///
    /// Waits for a peer that does not read, for 5 s at most; other threads run meanwhile, and Ctrl-C ends the wait. The peer gets the whole
    /// notification or nothing of it. After a KeyboardInterrupt it gets nothing, or, of a content of more than 2 KiB, possibly all.
    ///
    /// It may overtake transfers: wait for those first. A peer that runs this engine gets exactly this content, up to its
    /// FLAGCX_P2P_NOTIF_MAX_BYTES: in Python from `Engine.notifications`, in C++ from flagcxP2pEngineGetNotifsOf. The original engine gets
    /// at most 256 bytes, filled up with zeros. Raises ValueError for such a name, TypeError for what is no buffer, P2pError when the peer does
    /// not take it.
    #[pyo3(signature = (name, content = None), text_signature = "($self, name, content=b'')")]
    fn notify(&self, name: &Bound<'_, PyAny>, content: Argument<'_, '_>) -> PyResult<()> {
        self.shared.core()?;
        let note = Note::of(name, content)?;
        let sent = sending::send(name.py(), &self.core, note);
        sent.map_err(|error| self.shared.core().err().unwrap_or(error))
    }

    /// The address of the region that the peer registered before all others that it has now; None without one.
    ///
    /// Waits for the peer's answer for at most a second; other threads run meanwhile.
    #[pyo3(name = "_oldest_region")]
    fn oldest_region(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        self.shared.core()?;
        Ok(py.detach(|| self.core.oldest_region()).map(|region| region.base))
    }

    /// The state of the connection as it is now: a ConnectionInfo.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static CLASS: NamedTuple = NamedTuple::new("ConnectionInfo");
        self.shared.core()?;
        let info = self.core.info();
        let fields = (
            path(info.path),
            info.lanes,
            info.healthy_lanes,
            info.local,
            info.ours,
            info.gpu_index,
            info.peer,
            path(info.paths.read),
            path(info.paths.write),
        );
        CLASS.of(py, fields)
    }

    /// The rails of the connection as they are now, by their numbers: a list of RailInfo. A rail is a NIC of this host, a NIC of the
    /// peer, and the lanes between them; every connection has one, those over several NICs have up to 8.
    fn rails<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        self.shared.core()?;
        self.core.rails().into_iter().map(|info| crate::rails::named(py, info)).collect()
    }

    /// The other end, "ip:port".
    #[getter]
    fn peer(&self) -> String {
        self.core.peer().control.to_string()
    }

    /// Whether it takes no transfers any more: it or its engine has been closed, or the peer has gone.
    #[getter]
    fn closed(&self) -> bool {
        self.shared.is_closed() || !self.core.is_usable()
    }

    /// Ends the connection, for all objects that `Engine.connect` has answered for it; the peer is told. Its transfers end as cancelled;
    /// when this returns nothing of it touches host memory any more. The engine's regions stay, and `connect` makes another one.
    ///
    /// Takes at most 2 s. Ctrl-C ends the wait for that within a fraction of a second: the connection goes on to end, and another call
    /// waits for it. Repeats do nothing, and so does this in a forked process.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.core.here().is_err() {
            return Ok(());
        }
        let core = Arc::clone(&self.core);
        waiting::finish(py, "p2p-close", move || core.close())
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        self.close(py)
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let advice = "connect an Engine of the other process to the peer, by its \"host:port\"";
        Err(single::not_copied(slf.get_type().name()?, advice))
    }

    fn __repr__(&self) -> String {
        format!("<flagcx_p2p.Connection to {}>", self.core.peer().control)
    }
}

fn opcode(write: bool) -> Opcode {
    if write { Opcode::Write } else { Opcode::Read }
}

fn path(kind: PathKind) -> &'static str {
    kind.name()
}
