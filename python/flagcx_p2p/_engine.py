"""Engines, their regions and connections."""

import ctypes
import threading
from types import TracebackType
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Type

from . import _library
from ._buffer import ExportedBuffer
from ._errors import P2pError
from ._transfer import Piece, Transfer, start

_PATHS = ("none", "rdma", "in-process", "cross-memory", "tcp")


def _path(number: int) -> str:
    return _PATHS[number] if number < len(_PATHS) else f"path {number}"


class Notification(NamedTuple):
    """A message of a peer."""

    name: bytes
    #: At most 256 bytes are filled up to 256 with zero bytes.
    content: bytes


class ConnectionInfo(NamedTuple):
    """How a connection fares."""

    #: How bytes travel now: "rdma", "in-process", "cross-memory", "tcp", or "none" when not connected. The slower path
    #: where reads and writes take different ones.
    path: str
    #: Queue pairs agreed with the peer, and how many of them are in working order now.
    lanes: int
    healthy_lanes: int
    #: Whether the peer is on this host.
    local: bool
    #: Whether the peer runs this engine, not the original one.
    ours: bool
    #: The peer's GPU index.
    gpu_index: int
    #: Control address of the peer, "ip:port".
    peer: str
    #: The path of reads and that of writes. They differ where a sandbox denies one of the copies between two processes.
    read_path: str
    write_path: str


class Engine:
    """Registers memory and meets peers. Close it, or use it in a ``with`` statement.

    Closing ends its connections, transfers and registrations. Objects that it gave out are of no use afterwards, and
    say so.
    """

    def __init__(self) -> None:
        self._library = _library.load()
        self._handle: Optional[int] = self._library.engine_create()
        self._regions: Dict[int, "Region"] = {}
        # Guards what follows. A signal handler may run, and use this engine, while its own thread holds the lock: so it
        # is one that a thread can take twice, as a condition's is.
        self._changed = threading.Condition()
        self._closing = False
        self._ended = False
        # The thread of each call that is inside the library with this engine's handle or one of its connections'.
        self._callers: List[int] = []
        if self._handle is None:
            raise self._library.error()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def close(self) -> None:
        """Ends the engine; when this returns, nothing touches its regions' memory any more. Repeats do nothing.

        New calls are refused at once. Those that other threads are in are waited for, because the library frees what
        they work with: each ends by its own deadline, see :mod:`flagcx_p2p`. Called from inside a call, as a signal
        handler may do, this returns at once, and the engine ends with that call.
        """
        with self._changed:
            self._closing = True
        self._end_when_unused()
        with self._changed:
            while not self._ended and threading.get_ident() not in self._callers:
                self._changed.wait()

    @property
    def port(self) -> int:
        """The TCP port that peers connect to."""
        port: int = self._call(self._library.engine_port, self._handle)
        if port < 0:
            raise self._library.error()
        return port

    def start_server(self) -> None:
        """Accepts peers in the background, which may then read and write this engine's regions. Repeats do nothing."""
        if self._call(self._library.engine_start_server, self._handle) != 0:
            raise self._library.error()

    def register(self, buffer: Any, announced: bool = True, read_only: bool = False) -> "Region":
        """Registers the memory of a contiguous buffer: bytearray, array.array, mmap, numpy array.

        It stays where it is, and cannot be resized, until the region is closed; the region keeps it alive. Regions that
        are not ``announced`` are unknown to peers; all others are found by them from now on.

        ``read_only``: peers may read it, and writes may send it; nothing may change it. The buffer must be writable
        otherwise; so, it may be read-only, as bytes are.
        """
        exported = ExportedBuffer(buffer, writable=not read_only)
        flags = _library.REG_HOST | (_library.REG_READ_ONLY if read_only else 0)
        return self._register(exported.address, exported.size, flags, announced, exported)

    def register_address(
        self,
        address: int,
        size: int,
        device: Optional[bool] = None,
        announced: bool = True,
        read_only: bool = False,
    ) -> "Region":
        """Registers memory by address, such as a tensor's. The caller keeps it alive until the region is closed.

        ``device``: whether it is GPU memory; None asks the GPU's runtime. ``read_only``: see :meth:`register`. Memory
        of the host that is mapped without write permission is registered so in any case; what cannot be read, or lies
        beyond the end of its file, is refused.
        """
        kind = {None: 0, False: _library.REG_HOST, True: _library.REG_DEVICE}[device]
        return self._register(address, size, kind | (_library.REG_READ_ONLY if read_only else 0), announced, None)

    def connect(self, session: str) -> "Connection":
        """The connection to the engine that listens at "host:port" or "[v6]:port", made at the first call.

        Later calls answer the same connection as long as it works.
        """
        handle = self._call(self._library.connect, self._handle, session.encode())
        if handle is None:
            raise self._library.error()
        return Connection(self, handle)

    def notifications(self) -> List[Notification]:
        """Takes all notifications that this engine has received, in the order of their arrival."""
        received: List[Notification] = []

        def take(_context: Any, name: int, content: int, size: int) -> None:
            received.append(Notification(ctypes.string_at(name, 256).rstrip(b"\0"), ctypes.string_at(content, size)))

        if self._call(self._library.notifications, self._handle, _library.NotifSink(take), None) != 0:
            raise self._library.error()
        return received

    def _register(self, address: int, size: int, flags: int, announced: bool, owner: Any) -> "Region":
        flags |= 0 if announced else _library.REG_UNANNOUNCED
        number = ctypes.c_uint64()
        if self._call(self._library.register, self._handle, address, size, flags, ctypes.byref(number)) != 0:
            raise self._library.error()
        region = Region(self, number.value, address, size, owner)
        with self._changed:
            self._regions[id(region)] = region
        return region

    def _deregister(self, region: "Region") -> bool:
        """Whether the library is done with the region's memory."""
        try:
            self._call(self._library.deregister, self._handle, region.number)
        except P2pError:  # the engine is closed, perhaps only just
            self.close()
            return self._ended
        with self._changed:
            self._regions.pop(id(region), None)
        return True

    def _call(self, function: Any, *arguments: Any) -> Any:
        """Calls the library with this engine's handle, or one of its connections', which stay valid until it returns.

        All calls with such a handle go through here.
        """
        caller = threading.get_ident()
        with self._changed:
            # Before the look at `_closing`: a signal handler that closes in between finds that it must not end it yet.
            self._callers.append(caller)
        try:
            if self._closing:
                raise P2pError("the engine is closed")
            return function(*arguments)
        finally:
            with self._changed:
                self._callers.remove(caller)
            if self._closing:
                self._end_when_unused()

    def _end_when_unused(self) -> None:
        """Ends a closing engine. While there are calls, does nothing: the last one comes here as well."""
        with self._changed:
            handle = self._handle
            if self._callers or handle is None:
                return
            self._handle = None
            # Lets a signal handler on this thread see that it cannot wait for the end.
            caller = threading.get_ident()
            self._callers.append(caller)
        try:
            self._library.engine_destroy(handle)
        finally:
            with self._changed:
                self._ended = True
                self._callers.remove(caller)
                regions, self._regions = self._regions, {}
                for region in regions.values():
                    region._owner = None
                self._changed.notify_all()


class Region:
    """Registered memory. Close it, or use it in a ``with`` statement; its engine's end closes it as well."""

    def __init__(self, engine: Engine, number: int, address: int, size: int, owner: Any) -> None:
        self._engine = engine
        self._owner = owner
        # Taken by who closes it, so that others wait; twice by a thread whose signal handler closes it as well.
        self._closing = threading.RLock()
        self._open = True
        #: Its id in the engine.
        self.number = number
        #: Its first byte, which peers name.
        self.address = address
        #: Bytes.
        self.size = size

    def __enter__(self) -> "Region":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Region({self.address:#x}, {self.size} bytes)"

    def close(self) -> None:
        """Ends the registration. Waits for this engine's transfers on it. Repeats do nothing."""
        with self._closing:
            was_open, self._open = self._open, False
            if was_open and self._engine._deregister(self):
                self._owner = None


class Connection:
    """The way to one peer. Its engine owns it; there is nothing to close."""

    def __init__(self, engine: Engine, handle: int) -> None:
        self._engine = engine
        self._library = engine._library
        self._handle = handle

    def write(self, region: Region, remote_address: int, offset: int = 0, size: Optional[int] = None) -> None:
        """Writes ``size`` bytes of ``region`` to the peer's memory; they are there when this returns."""
        self.write_many([Piece(region, remote_address, offset, size)])

    def write_many(self, pieces: Sequence[Piece]) -> None:
        """Writes many ranges and waits for all. Nothing is sent unless every piece makes sense."""
        count = len(pieces)
        array = ctypes.c_uint64 * count
        sizes = array(*[piece.bytes() for piece in pieces])
        sources = array(*[piece.local_address() for piece in pieces])
        targets = array(*[piece.remote_address for piece in pieces])
        if self._call(self._library.write_sync, count, sources, targets, sizes) != 0:
            raise self._library.error()

    def read(self, region: Region, remote_address: int, offset: int = 0, size: Optional[int] = None) -> None:
        """Reads ``size`` bytes of the peer's memory into ``region``; they are there when this returns."""
        self.start_read([Piece(region, remote_address, offset, size)]).wait()

    def start_write(self, pieces: Sequence[Piece]) -> Transfer:
        """Starts writing many ranges as one transfer."""
        return start(self, "try_write", list(pieces))

    def start_read(self, pieces: Sequence[Piece]) -> Transfer:
        """Starts reading many ranges as one transfer."""
        return start(self, "try_read", list(pieces))

    def notify(self, name: bytes, content: bytes = b"") -> None:
        """Sends a notification with a name of at most 256 bytes.

        It may overtake transfers: wait for those first. A peer that runs this engine gets exactly this content, up to its
        FLAGCX_P2P_NOTIF_MAX_BYTES: in Python from :meth:`Engine.notifications`, in C++ from flagcxP2pEngineGetNotifsOf. The
        original engine gets at most 256 bytes, filled up with zeros. The name must have no NUL.
        """
        if len(name) > 256:
            raise ValueError(f"the name of a notification has at most 256 bytes, got {len(name)}")
        if b"\0" in name:
            raise ValueError("the name of a notification must have no NUL")
        if self._call(self._library.notify_bytes, name, content, len(content)) < 0:
            raise self._library.error()

    def info(self) -> ConnectionInfo:
        """Tells how the connection fares."""
        info = _library.ConnInfo(size=ctypes.sizeof(_library.ConnInfo))
        if self._call(self._library.conn_info, ctypes.byref(info)) != 0:
            raise self._library.error()
        return ConnectionInfo(
            path=_path(info.path),
            lanes=info.lanes,
            healthy_lanes=info.healthyLanes,
            local=bool(info.local),
            ours=bool(info.ours),
            gpu_index=info.gpuIndex,
            peer=info.peer.decode(errors="replace"),
            read_path=_path(info.readPath),
            write_path=_path(info.writePath),
        )

    def _call(self, function: Any, *arguments: Any) -> Any:
        return self._engine._call(function, self._handle, *arguments)
