//! Engines.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use flagcx_p2p::{Access, AllocateOptions, Engine as CoreEngine, EngineOptions};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::connecting::connect;
use crate::connection::Connection;
use crate::errors::refused;
use crate::info::{SlowTransfer, snapshot};
use crate::names::Names;
use crate::notification;
use crate::number::{self, Number};
use crate::peer::Peer;
use crate::reactor::LoopQueue;
use crate::region::{Region, Registration};
use crate::shared::Shared;
use crate::shared_memory::SharedMemory;
use crate::stats::Stats;
use crate::{logging, process, settings, single};

/// Registers memory and connects to peers. Close it, or use it in a `with` statement; one that is dropped is closed, and one that lives
/// when the interpreter ends as well.
///
/// `gpu`: the index of the GPU that holds the memory it moves, which also chooses the NIC next to it; without it, the GPU of the GPU memory that
/// is registered first chooses the NIC. `settings`: configuration variables
/// (`FLAGCX_P2P_...`) with their texts, which go before those of the environment, and these before the configuration files. Without
/// them, environment and files as they were when the first engine of the process was made. What chooses or sets up devices
/// (FLAGCX_P2P_FABRIC, FLAGCX_P2P_PATH, FLAGCX_P2P_FAULTS, FLAGCX_IB_...) counts with the first engine of a process, or with
/// `fabric_info` before it; another value is refused later. The queues and workers of a device
/// (FLAGCX_P2P_WORKERS_PER_POOL, FLAGCX_P2P_SHARD_COUNT, FLAGCX_P2P_QUEUE_DEPTH, FLAGCX_P2P_CQ_DEPTH, FLAGCX_P2P_MAX_REQUESTS,
/// FLAGCX_P2P_BATCH_POLL_SIZE, FLAGCX_P2P_SPIN_US) and FLAGCX_P2P_METRICS are those of the first of the engines that are open.
///
/// `directory`: where names of peers are published and looked up: `etcd://host:2379/prefix`, `static:NAME=HOST:PORT,...` or
/// `static:FILE`; by default FLAGCX_P2P_DIRECTORY. `name`: published at once, as by `publish`.
///
/// Raises P2pError when no device can be opened, or a setting is refused; ValueError for a name that is no variable. Any method may be called from any thread. In a process that was
/// forked from its own, closing and dropping it do nothing, and every other call is refused: create another engine there.
#[pyclass(frozen, module = "flagcx_p2p", weakref)]
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) shared: Arc<Shared>,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (*, gpu = None, settings = None, directory = None, name = None))]
    fn new(
        py: Python<'_>,
        #[pyo3(from_py_with = number::gpu)] gpu: Option<i32>,
        settings: Option<HashMap<String, String>>,
        directory: Option<&str>,
        name: Option<&str>,
    ) -> PyResult<Self> {
        logging::start();
        let config = settings::config(settings)?;
        // It may read files.
        let names = py.detach(|| Names::new(directory, &config))?;
        let default = EngineOptions::default();
        let options = EngineOptions { gpu_index: gpu.unwrap_or(default.gpu_index), ..default };
        let core = py.detach(|| CoreEngine::open(Arc::clone(&config), options)).map_err(refused)?;
        let shared = Arc::new(Shared::new(core, names));
        process::remember(Arc::downgrade(&shared));
        let engine = Self { shared };
        match name.map(|name| engine.publish(py, name)) {
            Some(Err(error)) => {
                engine.shared.close(py);
                Err(error)
            }
            _ => Ok(engine),
        }
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        self.close(py)
    }

    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<()> {
        let advice = "create one in the other process, and connect the two by \"host:port\"";
        Err(single::not_copied(slf.get_type().name()?, advice))
    }

    fn __repr__(&self) -> String {
        let state = match self.shared.core() {
            Err(_) => "closed, or of another process".to_owned(),
            Ok(core) => core.rpc_port().map_or_else(
                || "without a listener".to_owned(),
                |port| format!("at {}", std::net::SocketAddr::new(core.address(), port)),
            ),
        };
        format!("<flagcx_p2p.Engine {state}>")
    }

    /// Ends the engine, with its connections, transfers and registrations. When this returns nothing touches its regions' memory any
    /// more. Repeats do nothing; a second thread that closes it waits for the first.
    ///
    /// Published names are withdrawn first. Transfers under way end as cancelled, and calls that wait are told. Takes at most
    /// FLAGCX_P2P_XFER_TIMEOUT_MS and 4 s more, whatever peers do, and for an engine that has published names 4 s more again where the
    /// directory does not answer: 2 s for all names together, and 2 s for their lease if it answered until then. Most often it takes some
    /// milliseconds. Ctrl-C ends the wait for that within a fraction of a second: the engine goes on to
    /// end, its memory may be in use until it has, and another call waits for it. So does the end of the program.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.shared.close_or_leave(py)
    }

    /// Whether it has been closed.
    #[getter]
    fn closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// The TCP port that peers connect to.
    #[getter]
    fn port(&self) -> PyResult<u16> {
        self.shared.core()?.rpc_port().ok_or_else(|| refused("the engine has no listener: see its log"))
    }

    /// The IP address that peers connect to: that of FLAGCX_P2P_ADVERTISE, else the one that the engine listens at.
    #[getter]
    fn address(&self) -> PyResult<String> {
        Ok(self.shared.core()?.address().to_string())
    }

    /// The text that `connect` of a peer takes: "host:port", or `[v6]:port`.
    #[getter]
    fn session(&self) -> PyResult<String> {
        let metadata = self.shared.core()?.metadata().map_err(refused)?;
        Ok(metadata.split('?').next().unwrap_or_default().to_owned())
    }

    /// Accepts peers in the background, which may then read and write this engine's regions. Returns at once; repeats do nothing.
    fn start_server(&self, py: Python<'_>) -> PyResult<()> {
        let core = self.shared.core()?;
        py.detach(|| core.start_rpc_server()).map_err(|error| self.shared.refused(error))
    }

    /// Publishes this engine under ``name`` in its directory, and accepts peers as :meth:`start_server` does.
    ///
    /// ``name``: 1 to 253 of the characters A-Z a-z 0-9 . _ - in groups that are separated by ``/``. The name stays until
    /// :meth:`withdraw`, or until the engine is closed; that of a process that dies vanishes with its lease, after 10 s by default. One
    /// that the engine has already is no error. Waits for the directory, at most for FLAGCX_P2P_CONNECT_TIMEOUT_MS; other threads run
    /// meanwhile, and Ctrl-C ends the wait: the name is withdrawn then.
    ///
    /// Raises :class:`NameInUse` when another engine has the name and answers; one that is gone is taken over from. :class:`P2pError`
    /// when the directory cannot be reached or the engine has none, ``ValueError`` for what is no name.
    fn publish(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.start_server(py)?;
        self.shared.names.publish(py, self.shared.core()?, name)
    }

    /// Gives up a name that :meth:`publish` has published; does nothing if the engine does not have it. Waits for the directory, at
    /// most for FLAGCX_P2P_CONNECT_TIMEOUT_MS; Ctrl-C ends the wait, and the name is given up all the same. Raises :class:`P2pError` when
    /// the directory cannot be reached: the name vanishes with its lease then.
    fn withdraw(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        self.shared.core()?;
        self.shared.names.withdraw(py, name)
    }

    /// The names that this engine has published, and whether it holds each: false while the directory has been out of reach for longer than
    /// the name's lease, and after another engine has taken the name over.
    #[getter]
    fn published(&self, py: Python<'_>) -> PyResult<BTreeMap<String, bool>> {
        self.shared.core()?;
        Ok(self.shared.names.published(py))
    }

    /// The peers that have published a name in the engine's directory, in the order of the names: a list of :class:`Peer`.
    ///
    /// ``prefix``: what the names begin with. Waits for the directory, at most for FLAGCX_P2P_CONNECT_TIMEOUT_MS; Ctrl-C ends the wait.
    /// Raises :class:`P2pError` when it cannot be reached, or the engine has none.
    #[pyo3(signature = (prefix = ""))]
    fn peers(&self, py: Python<'_>, prefix: &str) -> PyResult<Vec<Peer>> {
        self.shared.core()?;
        self.shared.names.peers(py, prefix.to_owned())
    }

    /// The connection to the engine that listens at "host:port" or `[v6]:port`, or that has published a name, made at the first call.
    ///
    /// ``session``: a word without a colon is a name. It is looked up in the engine's directory at each call, at most for
    /// FLAGCX_P2P_CONNECT_TIMEOUT_MS, so that a peer which was started again is found: :class:`NotPublished` with the names that may be
    /// meant.
    ///
    /// Later calls answer the same connection as long as it works, and make another one when it has ended. Waits for the peer, at most for
    /// FLAGCX_P2P_CONNECT_TIMEOUT_MS and FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS; other threads run meanwhile, and Ctrl-C ends the wait.
    ///
    /// Raises P2pError with what was tried at each address of the host. After that, calls for the same peer fail at once for 100 ms, and
    /// for longer after each further failure, up to 5 s.
    fn connect(&self, py: Python<'_>, session: &str) -> PyResult<Connection> {
        let core = self.shared.core()?;
        let connection = if session.contains(':') {
            connect(py, core, session)?.map_err(|error| self.shared.refused(error))?
        } else {
            self.shared
                .names
                .connect(py, core, session)?
                .map_err(|error| self.shared.core().err().unwrap_or(error))?
        };
        Ok(Connection::new(Arc::clone(&self.shared), connection))
    }

    /// Registers the memory of an object for transfers, in place, and keeps it alive: :class:`Region`.
    ///
    /// ``buffer``: whatever has contiguous memory. Buffers (``bytes``, ``bytearray``, ``memoryview``, ``array.array``, ``mmap``, numpy
    /// arrays), PyTorch tensors, and objects with ``__cuda_array_interface__`` or ``__dlpack__``. What the elements are does not matter:
    /// bytes are moved. Of memory of a GPU nothing is copied, and no stream is waited for: a program waits for its kernels before it
    /// starts a transfer. Any GPU will do, also another than the engine's.
    ///
    /// ``announced``: whether peers are told of it, and so may use its addresses. ``read_only``: whether peers may only read it, and
    /// transfers only send it; None: as the memory is. ``fd``, ``offset``: the file that it is a shared mapping of, from there on; peers
    /// of the host and user may map it then.
    ///
    /// Raises ``BufferError`` for memory that is not contiguous, or of a device that the engine does not know, ``ValueError`` for an empty
    /// one, ``TypeError`` for an object without memory, :class:`P2pError` if the engine or its device refuses it: each with the remedy.
    ///
    /// While it is registered a buffer can neither be freed nor resized. PyTorch does not know of registrations: do not resize the
    /// storage of a registered tensor.
    #[pyo3(
        signature = (buffer, *, announced = true, read_only = None, fd = None, offset = Number(0)),
        text_signature = "($self, buffer, *, announced=True, read_only=None, fd=None, offset=0)"
    )]
    fn register(
        &self,
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        announced: bool,
        read_only: Option<bool>,
        #[pyo3(from_py_with = number::fd)] fd: Option<i32>,
        offset: Number,
    ) -> PyResult<Region> {
        if fd.is_none() && offset.0 != 0 {
            return Err(PyValueError::new_err(format!(
                "offset={} is a place in a file, and none was given: pass its descriptor as fd, or register a part of the buffer",
                offset.0
            )));
        }
        let registration =
            Registration::of_object(buffer, announced, read_only, fd.map(|fd| (fd, offset.0)))?;
        Region::register(py, &self.shared, registration)
    }

    /// Registers the memory of several objects as :meth:`register` does: all of them, or, if one is refused, none.
    ///
    /// The error names the first that was refused (``buffer 3: ...``), by its index. Answers the regions in the same order.
    #[pyo3(signature = (buffers, *, announced = true, read_only = None))]
    fn register_many(
        &self,
        py: Python<'_>,
        buffers: &Bound<'_, PyAny>,
        announced: bool,
        read_only: Option<bool>,
    ) -> PyResult<Vec<Region>> {
        Region::register_many(py, &self.shared, Registration::of_objects(buffers, announced, read_only)?)
    }

    /// Registers ``size`` bytes of memory at ``address``. **The program keeps them mapped** until the region, or the engine, is closed.
    ///
    /// ``device``: whether it is memory of a GPU; None: the GPU's runtime is asked. Raises ``ValueError`` for what is no range of
    /// addresses, :class:`P2pError` for one that cannot be accessed.
    #[pyo3(signature = (address, size, *, device = None, announced = true, read_only = false))]
    fn register_address(
        &self,
        py: Python<'_>,
        address: Number,
        size: Number,
        device: Option<bool>,
        announced: bool,
        read_only: bool,
    ) -> PyResult<Region> {
        Region::register(
            py,
            &self.shared,
            Registration::of_address(address.0, size.0, device, announced, read_only)?,
        )
    }

    /// Allocates and registers ``size`` bytes of zeroed memory, which begin a page: :class:`SharedMemory`.
    ///
    /// Peers of the same host and user that use the software fabric map it, the fastest way between two processes. ``huge``: in
    /// huge pages, of the pool that the administrator has made. ``read_only``: whether peers may only read it.
    #[pyo3(signature = (size, *, huge = false, announced = true, read_only = false))]
    fn allocate(
        &self,
        py: Python<'_>,
        size: &Bound<'_, PyAny>,
        huge: bool,
        announced: bool,
        read_only: bool,
    ) -> PyResult<Py<SharedMemory>> {
        let access = if read_only { Access::READ_ONLY } else { Access::FULL };
        let options = AllocateOptions { huge_pages: huge, access, announced };
        SharedMemory::allocate(py, &self.shared, size, options)
    }

    /// Asynchronous iterator over the notifications of this engine, in the order of their arrival:
    /// ``async for name, content in engine.notified()``.
    ///
    /// Of several iterators, and of calls of ``notifications``, each notification goes to exactly one. A task that is cancelled while
    /// it waits loses none. It ends when the engine is closed. In asyncio or a loop with ``add_reader``, in any thread; a loop is woken
    /// by the arrival, and does nothing before. At most FLAGCX_P2P_NOTIF_QUEUE wait: peers are read no further until some are taken.
    fn notified<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.get().shared.core()?;
        notification::iterator(slf)
    }

    /// Appends all notifications that have arrived to a list, or only the oldest.
    #[pyo3(name = "_receive")]
    fn receive(&self, into: &Bound<'_, PyList>, all: bool) -> PyResult<()> {
        let core = self.shared.core()?;
        self.shared.arrivals.receive(core, into, all)
    }

    /// Has the next call of `_receive` find these first: an exception has kept them from their reader.
    #[pyo3(name = "_give_back")]
    fn give_back(&self, notifications: Vec<(Vec<u8>, Vec<u8>)>) {
        self.shared.arrivals.give_back(notifications);
    }

    /// Has `token` pushed at the next arrival, or when the engine is closed; false if it is closed.
    #[pyo3(name = "_watch")]
    fn watch(&self, queue: &LoopQueue, token: u64) -> PyResult<bool> {
        self.shared.core()?;
        Ok(self.shared.arrivals.waiters.add(&queue.0, token))
    }

    #[pyo3(name = "_unwatch")]
    fn unwatch(&self, queue: &LoopQueue, token: u64) {
        // In a forked child a thread of the parent's may hold their lock for ever.
        if self.shared.core().is_ok() {
            self.shared.arrivals.waiters.remove(&queue.0, token);
        }
    }

    /// The transfers of this engine that have not ended for at least `older_than` seconds, the oldest first; 0: all that have not ended.
    ///
    /// Tells what is stuck, and with which peer. One that the call which started it copied, or that waits in a queue, is not among them.
    /// Raises ValueError for a number of seconds that is negative or beyond the clock.
    #[pyo3(signature = (older_than = 1.0))]
    fn slow_transfers(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = number::older_than)] older_than: f64,
    ) -> PyResult<Vec<SlowTransfer>> {
        let older_than = Duration::try_from_secs_f64(older_than)
            .map_err(|error| PyValueError::new_err(format!("older_than {older_than}: {error}")))?;
        let core = self.shared.core()?;
        let found = py.detach(|| core.slow_transfers(older_than));
        Ok(found.into_iter().map(SlowTransfer::new).collect())
    }

    /// What this process has counted since its start, over all its engines: a flagcx_p2p.Stats, a dictionary of numbers.
    ///
    /// `stats["ended"]["write"]["tcp"]["done"]` is {"transfers": ..., "bytes": ...}: by direction, path and outcome ("done", "failed",
    /// "timed_out", "cancelled"), with keys for what has happened. `stats["in_flight"]` is such a pair too. The other keys are whole
    /// numbers. Costs some microseconds for each connection.
    fn stats(&self, py: Python<'_>) -> PyResult<Stats> {
        self.shared.core()?;
        Ok(py.detach(Stats::take))
    }

    /// All that this process tells those that watch it, as a dictionary: what `/snapshot` of the metrics endpoint answers. Every metric,
    /// the slow transfers, and the last events. `uptime_seconds` is the time since this engine was made.
    ///
    /// No endpoint is needed for it. Raises P2pError in a package that was built without the metrics endpoint.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.shared.core()?;
        snapshot(py, self.shared.age())
    }
}
