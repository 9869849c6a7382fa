"""Engines."""

import ctypes
import struct
import threading
from types import TracebackType
from typing import Any, List, NamedTuple, Optional, Type

from . import _library
from ._buffer import ExportedBuffer
from ._connection import Connection
from ._handle import EngineHandle
from ._region import Region
from ._shared import SharedMemory
from ._single import Single


class Notification(NamedTuple):
    """A message of a peer."""

    name: bytes
    #: At most 256 bytes are filled up to 256 with zero bytes.
    content: bytes


class SlowTransfer(NamedTuple):
    """A transfer that has not ended."""

    #: Its id; 0 while the call that starts it has not returned. Error texts and logs name it.
    id: int
    #: The address of its peer, "host:port".
    peer: str
    #: Whether it is a read; else a write.
    is_read: bool
    #: How its bytes travel: "rdma", "tcp", "cross-memory", "shared", "in-process" or "gpu"; "none" if no lane has it yet.
    path: str
    #: Bytes of its parts that have not ended. A part is what one lane moves.
    bytes: int
    #: The lanes with these parts, by their number in the connection.
    lanes: List[int]
    #: Work requests of these parts, and how many of them are done.
    pieces: int
    pieces_done: int
    #: How long it has been unfinished, in seconds.
    age: float


class Engine(Single):
    """Registers memory and connects to peers. Close it, or use it in a ``with`` statement.

    Closing ends its connections, transfers and registrations. Calls of objects that it returned raise an error
    afterwards. In a process that was forked from its own, closing or dropping it does nothing, and every other call is
    refused; create another one there.
    """

    _advice = 'create one in the other process, and connect the two by "host:port"'

    def __init__(self) -> None:
        self._library = _library.load()
        self._handle = EngineHandle(self._library)
        # Notifications that have been taken from the library: as it hands them out, and those that are not yet returned.
        self._block = _library.NotifBlock()
        self._received: List[Notification] = []
        # Held by the thread that takes them; reentrant, for a signal handler that takes them in that thread.
        self._receiving, self._taking = threading.RLock(), False

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the engine; when this returns, nothing touches its regions' memory any more. Repeats do nothing.

        New calls are refused at once. Those that other threads are in are waited for, because the library frees what
        they work with: each ends by its own deadline, see :mod:`flagcx_p2p`. Called from inside a call, as a signal
        handler may do, this returns at once, and the engine ends with that call. Interrupted by Ctrl-C, it may be called
        again. An engine that is dropped is closed; one that lives when the interpreter ends is as well.
        """
        self._handle.close()

    @property
    def port(self) -> int:
        """The TCP port that peers connect to."""
        port: int = self._call(self._library.engine_port)
        if port < 0:
            raise self._library.error()
        return port

    def start_server(self) -> None:
        """Accepts peers in the background, which may then read and write this engine's regions. Repeats do nothing."""
        if self._call(self._library.engine_start_server) != 0:
            raise self._library.error()

    def allocate(
        self, size: int, huge: bool = False, announced: bool = True, read_only: bool = False
    ) -> "SharedMemory":
        """Allocates ``size`` bytes of zeroed memory, 1 to what the host and the container have left, and registers them.

        A peer on this host and of the same user maps it and copies by itself, where the software fabric moves the bytes: the
        fastest memory there is between two processes. All of it is reserved by this call.

        ``huge``: in huge pages of the default size, from the pool of vm.nr_hugepages. ``announced`` as for :meth:`register`;
        ``read_only``: peers may only read it.
        """
        if not 0 < size < 1 << 63:
            raise ValueError(f"memory of {size} bytes cannot be allocated: at least one, and less than 2**63")
        memory = SharedMemory(self._handle, size)
        flags = _library.ALLOC_OUTLIVE | (_library.ALLOC_HUGE if huge else 0)
        flags |= _library.REG_READ_ONLY if read_only else 0
        memory._allocate(flags | (0 if announced else _library.REG_UNANNOUNCED))
        return memory

    def register(
        self,
        buffer: Any,
        announced: bool = True,
        read_only: bool = False,
        fd: Optional[int] = None,
        offset: int = 0,
    ) -> "Region":
        """Registers the memory of a contiguous buffer: bytearray, array.array, mmap, numpy array.

        It stays where it is, and cannot be resized, until the region is closed; the region keeps it alive. Regions that
        are not ``announced`` are unknown to peers; all others are found by them from now on.

        ``read_only``: peers may read it, and writes may send it; nothing may change it. The buffer must be writable
        otherwise; so, it may be read-only, as bytes are.

        ``fd``: the descriptor of the file that the buffer is mapped from (``mmap.mmap``, MAP_SHARED), from ``offset`` on, for
        peers on this host to map it as well. It may be closed afterwards. :meth:`allocate` gives memory that is faster.
        """
        exported = ExportedBuffer(buffer, writable=not read_only)
        flags = _library.REG_HOST | (_library.REG_READ_ONLY if read_only else 0)
        return self._register(exported.address, exported.size, flags, announced, exported, fd, offset)

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

    def connect(self, session: str) -> Connection:
        """The connection to the engine that listens at "host:port" or "[v6]:port", made at the first call.

        Later calls answer the same connection as long as it works.
        """
        pointer = self._call(self._library.connect, session.encode())
        if pointer is None:
            raise self._library.error()
        return Connection(self._handle, pointer)

    def slow_transfers(self, older_than: float = 1.0) -> List[SlowTransfer]:
        """The transfers that have not ended for at least ``older_than`` seconds, the oldest first; 0: all that have not ended.

        Tells what is stuck, and with which peer. Any thread may call it.
        """
        if not 0 <= older_than <= 4_000_000:
            raise ValueError(f"older_than is from 0 to 4,000,000 seconds, got {older_than}")
        milliseconds = int(older_than * 1000)
        capacity, count = 16, ctypes.c_size_t()
        while True:
            found = (_library.SlowTransferStruct * capacity)()
            found[0].size = ctypes.sizeof(_library.SlowTransferStruct)
            call = self._library.slow_transfers
            if self._call(call, milliseconds, found, capacity, ctypes.byref(count)) != 0:
                raise self._library.error()
            if count.value <= capacity:
                return [_slow_transfer(found[index]) for index in range(count.value)]
            capacity = count.value + 16

    def notifications(self) -> List[Notification]:
        """Takes all notifications that this engine has received, in the order of their arrival.

        An exception of a signal handler, such as ``KeyboardInterrupt``, loses none: the next call returns them.
        """
        self._handle.check_process()
        received: List[Notification] = []
        try:
            with self._receiving:
                if not self._taking:  # else this is a signal handler in the middle of it
                    try:
                        self._taking = True
                        self._take()
                    finally:
                        self._taking = False
                received, self._received = self._received, received
            return received
        except BaseException:
            self._received[:0] = received
            raise

    def _take(self) -> None:
        """Moves what the library has to ``self._received``; what an exception leaves is moved the next time."""
        block = self._block
        if block.address is None:
            address, size = ctypes.byref(block), ctypes.byref(block, _library.NotifBlock.bytes.offset)
            if self._call(self._library.notifications, address, size) != 0:
                raise self._library.error()
            if block.address is None:
                return
        batch = _unpack(ctypes.string_at(block.address, block.bytes))
        taken = block.address
        self._received += batch
        block.address = None
        self._library.free(taken)

    def _register(
        self,
        address: int,
        size: int,
        flags: int,
        announced: bool,
        owner: Any,
        fd: Optional[int] = None,
        offset: int = 0,
    ) -> Region:
        if not (0 <= address < 1 << 64 and 0 <= size < 1 << 64):
            raise ValueError(f"{size} bytes at address {address:#x} are no range of memory: both have 64 bits")
        if fd is not None and not (-(1 << 31) <= fd < 1 << 31 and 0 <= offset < 1 << 64):
            raise ValueError(f"descriptor {fd}, offset {offset}: a descriptor has 32 bits, an offset 64 and no sign")
        region = Region(self._handle, address, size)
        region._register(flags | (0 if announced else _library.REG_UNANNOUNCED), owner, fd, offset)
        return region

    def _call(self, function: Any, *arguments: Any) -> Any:
        return self._handle.call(function, self._handle.pointer, *arguments)


#: How each notification of a block begins: its name, and the length of the content that follows.
_HEAD = struct.Struct("=256sQ")


def _slow_transfer(found: "_library.SlowTransferStruct") -> SlowTransfer:
    return SlowTransfer(
        id=found.transferId,
        peer=found.peer.decode(errors="replace"),
        is_read=bool(found.isRead),
        path=found.path.decode(errors="replace"),
        bytes=found.bytes,
        lanes=[lane for lane in range(32) if found.lanes >> lane & 1],
        pieces=found.pieces,
        pieces_done=found.piecesDone,
        age=found.ageMs / 1000,
    )


def _unpack(block: bytes) -> List[Notification]:
    notifications, at = [], 0
    while at < len(block):
        name, size = _HEAD.unpack_from(block, at)
        at += _HEAD.size
        notifications.append(Notification(name.rstrip(b"\0"), block[at : at + size]))
        at += size
    return notifications
