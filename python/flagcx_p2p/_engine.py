"""Engines, their regions and connections."""

import ctypes
import threading
from types import TracebackType
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Type

from . import _library
from ._errors import P2pError
from ._transfer import Piece, Transfer, start

_PATHS = ("none", "rdma", "in-process", "cross-memory", "tcp")


class Notification(NamedTuple):
    """A message of a peer."""

    name: bytes
    #: At most 256 bytes are filled up to 256 with zero bytes.
    content: bytes


class ConnectionInfo(NamedTuple):
    """How a connection fares."""

    #: How bytes travel: "rdma", "in-process", "cross-memory", "tcp", or "none" when not connected.
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


class Engine:
    """Registers memory and meets peers. Close it, or use it in a ``with`` statement.

    Closing ends its connections, transfers and registrations. Objects that it gave out are of no use afterwards, and
    say so.
    """

    def __init__(self) -> None:
        self._library = _library.load()
        self._handle: Optional[int] = self._library.engine_create()
        self._regions: Dict[int, "Region"] = {}
        self._lock = threading.Lock()
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
        """Ends the engine. Repeats do nothing."""
        with self._lock:
            handle, self._handle = self._handle, None
            regions, self._regions = self._regions, {}
        if handle is not None:
            self._library.engine_destroy(handle)
        for region in regions.values():
            region._forget()

    @property
    def port(self) -> int:
        """The TCP port that peers connect to."""
        port: int = self._library.engine_port(self._usable())
        if port < 0:
            raise self._library.error()
        return port

    def start_server(self) -> None:
        """Accepts peers in the background, which may then read and write this engine's regions. Repeats do nothing."""
        if self._library.engine_start_server(self._usable()) != 0:
            raise self._library.error()

    def register(self, buffer: Any, announced: bool = True) -> "Region":
        """Registers the memory of a writable, contiguous buffer: bytearray, array.array, mmap, numpy array.

        It stays where it is, and cannot be resized, until the region is closed; the region keeps it alive. Regions that
        are not ``announced`` are unknown to peers. Register before peers connect: they learn of regions then.
        """
        with memoryview(buffer) as view:
            size = view.nbytes
        if size == 0:
            raise ValueError("an empty buffer cannot be registered")
        # Keeps the buffer from being freed or resized.
        exported = (ctypes.c_uint8 * size).from_buffer(buffer)
        return self._register(ctypes.addressof(exported), size, _library.REG_HOST, announced, exported)

    def register_address(
        self, address: int, size: int, device: Optional[bool] = None, announced: bool = True
    ) -> "Region":
        """Registers memory by address, such as a tensor's. The caller keeps it alive until the region is closed.

        ``device``: whether it is GPU memory; None asks the GPU's runtime.
        """
        kind = {None: 0, False: _library.REG_HOST, True: _library.REG_DEVICE}[device]
        return self._register(address, size, kind, announced, None)

    def connect(self, session: str) -> "Connection":
        """The connection to the engine that listens at "host:port" or "[v6]:port", made at the first call.

        Later calls answer the same connection as long as it works.
        """
        handle = self._library.connect(self._usable(), session.encode())
        if handle is None:
            raise self._library.error()
        return Connection(self, handle)

    def notifications(self) -> List[Notification]:
        """Takes all notifications that this engine has received, each kind (see :meth:`Connection.notify`) in order."""
        received: List[Notification] = []

        def take(_context: Any, name: int, content: int, size: int) -> None:
            received.append(Notification(ctypes.string_at(name, 256).rstrip(b"\0"), ctypes.string_at(content, size)))

        if self._library.notifications(self._usable(), _library.NotifSink(take), None) != 0:
            raise self._library.error()
        return received

    def _register(self, address: int, size: int, kind: int, announced: bool, owner: Any) -> "Region":
        flags = kind | (0 if announced else _library.REG_UNANNOUNCED)
        number = ctypes.c_uint64()
        if self._library.register(self._usable(), address, size, flags, ctypes.byref(number)) != 0:
            raise self._library.error()
        region = Region(self, number.value, address, size, owner)
        with self._lock:
            self._regions[id(region)] = region
        return region

    def _deregister(self, region: "Region") -> None:
        with self._lock:
            known = self._regions.pop(id(region), None) is not None
            handle = self._handle
        if known and handle is not None:
            self._library.deregister(handle, region.number)

    def _usable(self) -> int:
        if self._handle is None:
            raise P2pError("the engine is closed")
        return self._handle


class Region:
    """Registered memory. Close it, or use it in a ``with`` statement; its engine's end closes it as well."""

    def __init__(self, engine: Engine, number: int, address: int, size: int, owner: Any) -> None:
        self._engine = engine
        self._owner = owner
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
        self._engine._deregister(self)
        self._forget()

    def _forget(self) -> None:
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
        if self._library.write_sync(self._usable(), count, sources, targets, sizes) != 0:
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

        It may overtake transfers: wait for those first. More than 256 bytes of content go only to a peer that runs this
        engine, up to its FLAGCX_P2P_NOTIF_MAX_BYTES, and arrive in an order of their own.
        """
        if len(name) > 256:
            raise ValueError(f"the name of a notification has at most 256 bytes, got {len(name)}")
        if len(content) > 256:
            if self._library.notify_bytes(self._usable(), name, content, len(content)) < 0:
                raise self._library.error()
            return
        message = _library.NotifyMsg()
        ctypes.memmove(message.name, name, len(name))
        ctypes.memmove(message.msg, content, len(content))
        if self._library.notify(self._usable(), ctypes.byref(message)) < 0:
            raise self._library.error()

    def info(self) -> ConnectionInfo:
        """Tells how the connection fares."""
        info = _library.ConnInfo(size=ctypes.sizeof(_library.ConnInfo))
        if self._library.conn_info(self._usable(), ctypes.byref(info)) != 0:
            raise self._library.error()
        return ConnectionInfo(
            path=_PATHS[info.path] if info.path < len(_PATHS) else f"path {info.path}",
            lanes=info.lanes,
            healthy_lanes=info.healthyLanes,
            local=bool(info.local),
            ours=bool(info.ours),
            gpu_index=info.gpuIndex,
            peer=info.peer.decode(errors="replace"),
        )

    def _usable(self) -> int:
        self._engine._usable()
        return self._handle
