"""Connections."""

import ctypes
from typing import Any, NamedTuple, Optional, Sequence

from . import _library
from ._handle import EngineHandle
from ._region import Region
from ._single import Single
from ._transfer import Piece, Transfer

_PATHS = ("none", "rdma", "in-process", "cross-memory", "tcp", "shared")


def _path(number: int) -> str:
    return _PATHS[number] if number < len(_PATHS) else f"path {number}"


class ConnectionInfo(NamedTuple):
    """The state of a connection."""

    #: How bytes travel now: "rdma", "in-process", "cross-memory", "tcp", "shared", or "none" when not connected. The slower path
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


class Connection(Single):
    """A connection to one peer. Its engine owns it; there is nothing to close."""

    _advice = 'connect an Engine of the other process to the peer, by its "host:port"'

    def __init__(self, handle: EngineHandle, pointer: int) -> None:
        self._handle = handle
        self._library = handle.library
        self._pointer = pointer

    def write(self, region: Region, remote_address: int, offset: int = 0, size: Optional[int] = None) -> None:
        """Writes ``size`` bytes of ``region`` to the peer's memory; they are there when this returns.

        Ctrl-C cancels it, as any exception of a signal handler does, within a fraction of a second: when
        ``KeyboardInterrupt`` is raised, nothing reads the region's memory for it any more, and the peer's range holds
        anything. A second Ctrl-C meanwhile does not wait for that; regions keep their memory alive in any case.
        """
        self.write_many([Piece(region, remote_address, offset, size)])

    def write_many(self, pieces: Sequence[Piece]) -> None:
        """Writes many ranges and waits for all. Nothing is sent unless every piece is valid. Ctrl-C: as in write."""
        Transfer(self)._run("try_write", pieces)

    def read(self, region: Region, remote_address: int, offset: int = 0, size: Optional[int] = None) -> None:
        """Reads ``size`` bytes of the peer's memory into ``region``; they are there when this returns. Ctrl-C: as in write."""
        self.read_many([Piece(region, remote_address, offset, size)])

    def read_many(self, pieces: Sequence[Piece]) -> None:
        """Reads many ranges and waits for all. Nothing is read unless every piece is valid. Ctrl-C: as in write."""
        Transfer(self)._run("try_read", pieces)

    def start_write(self, pieces: Sequence[Piece]) -> Transfer:
        """Starts writing many ranges as one transfer."""
        transfer = Transfer(self)
        transfer._begin("try_write", pieces)
        return transfer

    def start_read(self, pieces: Sequence[Piece]) -> Transfer:
        """Starts reading many ranges as one transfer."""
        transfer = Transfer(self)
        transfer._begin("try_read", pieces)
        return transfer

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
        """The state of the connection, as it is now."""
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
        return self._handle.call(function, self._pointer, *arguments)
