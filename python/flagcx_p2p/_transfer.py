"""Transfers in flight."""

import ctypes
import time
from typing import TYPE_CHECKING, NamedTuple, Optional

from . import _library
from ._errors import P2pError, TransferCancelled, TransferFailed, TransferTimedOut

if TYPE_CHECKING:
    from ._engine import Connection, Region


class Piece(NamedTuple):
    """One contiguous range of a transfer: ``size`` bytes of ``region`` from ``offset`` on, and their place at the peer.

    ``size`` None: to the end of the region.
    """

    region: "Region"
    remote_address: int
    offset: int = 0
    size: Optional[int] = None

    def local_address(self) -> int:
        """Where the piece begins in this process."""
        return self.region.address + self.offset

    def bytes(self) -> int:
        """How long it is, checked against the region."""
        size = self.region.size - self.offset if self.size is None else self.size
        if self.offset < 0 or size < 0 or self.offset + size > self.region.size:
            raise ValueError(f"{size} bytes from offset {self.offset} on are not inside {self.region}")
        return size


class Transfer:
    """A transfer in flight. Its regions stay registered at least until it has ended."""

    def __init__(self, connection: "Connection", number: int) -> None:
        self._connection = connection
        self._number = number
        self._ended = False
        self._error: Optional[TransferFailed] = None

    def done(self) -> bool:
        """Whether it has ended, well or not. Asking helps it along."""
        return self._ended or self._settle(0)

    def wait(self, timeout: Optional[float] = None) -> None:
        """Waits until all bytes are where they belong.

        Raises :class:`TransferFailed` (or a kind of it) if they never will be, and :class:`TimeoutError` after
        ``timeout`` seconds, in which case the transfer goes on. Without ``timeout`` the engine's deadline bounds it.
        A plain :class:`P2pError` says that the engine was closed first: how the transfer ended is unknown then, and its
        memory is in use until :meth:`Engine.close` has returned.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ended:
            # In turns, so that signals such as Ctrl-C are seen.
            left = 0.2 if deadline is None else min(0.2, deadline - time.monotonic())
            if not self._settle(max(0, int(left * 1000))) and deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"the transfer is not over after {timeout} s")
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """Stops it. When this returns it has ended, and nothing touches its memory any more."""
        library = self._connection._library
        if not self._ended and self._connection._call(library.xfer_cancel, self._number) != 0:
            # It ended in the meantime.
            self.done()

    def _settle(self, milliseconds: int) -> bool:
        library = self._connection._library
        result = _library.XferResult(size=ctypes.sizeof(_library.XferResult))
        answer = self._connection._call(library.xfer_wait, self._number, milliseconds, ctypes.byref(result))
        if answer < 0:
            raise library.error()
        if answer == 1:
            return False
        if result.state != _library.DONE:
            self._error = _error(result)
        # Only now: another thread that sees it looks at the error next.
        self._ended = True
        return True


#: Seconds for which a call that starts a transfer waits for room: the default of ``FLAGCX_P2P_XFER_TIMEOUT_MS``.
START_LIMIT = 30.0


def start(connection: "Connection", function: str, pieces: "list[Piece]") -> Transfer:
    """Starts a transfer by one of the library's calls that never wait, trying again while there is no room.

    Raises `P2pError` after `START_LIMIT`: its caller may be the one that keeps the places, of transfers that it has not asked
    about.
    """
    if not pieces:
        raise ValueError("a transfer needs at least one piece")
    library, count = connection._library, len(pieces)
    sizes = [piece.bytes() for piece in pieces]
    regions = (ctypes.c_uint64 * count)(*[piece.region.number for piece in pieces])
    local = (ctypes.c_void_p * count)(*[piece.local_address() for piece in pieces])
    descs = (_library.Desc * count)()
    for desc, piece, size in zip(descs, pieces, sizes):
        # A descriptor says at most 4 GiB - 1; a longer piece is checked against the peer's regions when it starts.
        named = min(size, 0xFFFFFFFF)
        if connection._call(library.make_desc, piece.remote_address, named, ctypes.byref(desc)) != 0:
            raise library.error()
    number = ctypes.c_uint64()
    call = getattr(library, function)
    deadline = time.monotonic() + START_LIMIT
    while True:
        lengths = (ctypes.c_size_t * count)(*sizes)
        answer = connection._call(call, regions, local, lengths, descs, count, ctypes.byref(number))
        if answer == 0:
            return Transfer(connection, number.value)
        if answer != _library.WOULD_BLOCK:
            raise library.error()
        if time.monotonic() >= deadline:
            raise P2pError(
                f"no room for another transfer for {START_LIMIT:g} s: the queues are full, or as many transfers as an engine "
                "has places for were not asked how they ended (Transfer.wait, Transfer.done)"
            )
        time.sleep(0.0001)


def _error(result: "_library.XferResult") -> TransferFailed:
    reason = result.reason.decode(errors="replace")
    details = (result.iov, result.status, result.peer.decode(errors="replace"))
    if result.state == _library.TIMED_OUT:
        return TransferTimedOut("the transfer was not over at its deadline", *details)
    if result.state == _library.CANCELLED:
        return TransferCancelled("the transfer was cancelled", *details)
    if result.state == _library.UNKNOWN:
        return TransferFailed("the engine does not know the transfer any more", *details)
    return TransferFailed(f"the transfer failed at piece {result.iov}: {reason}", *details)


__all__ = ["P2pError", "Piece", "Transfer", "start"]
