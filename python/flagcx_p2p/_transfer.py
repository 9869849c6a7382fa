"""Transfers in flight."""

import ctypes
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Optional, Sequence

from . import _library
from ._errors import P2pError, TransferCancelled, TransferFailed, TransferTimedOut
from ._parts import Parts, cut
from ._region import Region
from ._single import Single

if TYPE_CHECKING:
    from ._connection import Connection


class Piece(NamedTuple):
    """One contiguous range of a transfer: ``size`` bytes of ``region`` from ``offset`` on, and their place at the peer.

    ``size`` None: to the end of the region. Any size will do, also 4 GiB and more.
    """

    region: Region
    remote_address: int
    offset: int = 0
    size: Optional[int] = None

    def local_address(self) -> int:
        """Where the piece begins in this process."""
        return self.region.address + self.offset

    def bytes(self) -> int:
        """How long it is, checked against the region and the address space."""
        size = self.region.size - self.offset if self.size is None else self.size
        if self.offset < 0 or size < 0 or self.offset + size > self.region.size:
            raise ValueError(f"{size} bytes from offset {self.offset} on are not inside {self.region}")
        if not 0 <= self.remote_address < 1 << 64:
            raise ValueError(f"the peer's address {self.remote_address:#x} is none: addresses have 64 bits")
        return size


class Transfer(Single):
    """A transfer in flight. Its regions stay registered at least until it has ended. One that is dropped goes on."""

    _advice = "wait for it here, and tell the other process how it ended"

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        # Written by the library; 0, a transfer that has ended, until one has been started.
        self._number = ctypes.c_uint64()
        self._parts = Parts(())
        self._ended = False
        self._error: Optional[TransferFailed] = None

    @property
    def id(self) -> int:
        """Its number in the engine, as in :class:`SlowTransfer` and the log; 0 if it ended in the call that started it."""
        return int(self._number.value)

    def done(self) -> bool:
        """Whether it has ended, well or not. Asking helps it along."""
        return self._ended or self._settle(0)

    def wait(self, timeout: Optional[float] = None) -> None:
        """Waits until all bytes are where they belong.

        Raises :class:`TransferFailed` (or a kind of it) if they never will be, and :class:`TimeoutError` after
        ``timeout`` seconds, in which case the transfer goes on. So it does when Ctrl-C ends the wait, which takes a
        fraction of a second: wait again, or :meth:`cancel` it. Without ``timeout`` the engine's deadline bounds it.
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
        if self._ended or not self._number.value:
            return
        self._connection._call(self._connection._library.xfer_cancel, self._number)
        # Also if it has ended in the meantime; asking gives its place in the engine back.
        self.done()

    def _run(self, function: str, pieces: Sequence[Piece]) -> None:
        """Starts it and waits, if there are any bytes. Whatever exception ends that, nothing uses its memory afterwards."""
        try:
            self._start(function, pieces, skip_empty=True)
            self.wait()
        except BaseException:
            self._abandon()
            raise

    def _begin(self, function: str, pieces: Sequence[Piece]) -> None:
        """Starts it. Whatever exception ends that, nothing is under way afterwards."""
        if not pieces:
            raise ValueError("a transfer needs at least one piece")
        try:
            self._start(function, pieces, skip_empty=False)
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        with suppress(P2pError):  # of a closed engine
            self.cancel()

    def _start(self, function: str, pieces: Sequence[Piece], skip_empty: bool) -> None:
        """Starts it by one of the library's calls that never wait, trying again while there is no room.

        Raises `P2pError` after `START_LIMIT`: its caller may be the one that keeps the places, of transfers that it has not
        asked about.
        """
        handle, library = self._connection._handle, self._connection._library
        self._parts = parts = cut(handle, pieces, skip_empty)
        if not parts:
            return
        count = len(parts)
        regions, local, remote, sizes = [(ctypes.c_uint64 * count).from_buffer(column) for column in parts.columns()]
        number = ctypes.byref(self._number)
        deadline = time.monotonic() + START_LIMIT
        while True:
            answer = self._connection._call(getattr(library, function), regions, local, sizes, remote, count, number)
            if answer == 0:
                return
            if answer != _library.WOULD_BLOCK:
                raise P2pError(parts.named_by_piece(str(library.error())))
            if time.monotonic() >= deadline:
                raise P2pError(
                    f"no room for another transfer for {START_LIMIT:g} s: the queues are full, or as many transfers as an "
                    "engine has places for were not asked how they ended (Transfer.wait, Transfer.done)"
                )
            time.sleep(0.0001)

    def _settle(self, milliseconds: int) -> bool:
        library = self._connection._library
        result = _library.XferResult(size=ctypes.sizeof(_library.XferResult))
        answer = self._connection._call(library.xfer_wait, self._number, milliseconds, ctypes.byref(result))
        if answer < 0:
            raise library.error()
        if answer == 1:
            return False
        if result.state != _library.DONE:
            self._error = _error(result, self._parts)
        # Only now: another thread that sees it looks at the error next.
        self._ended = True
        return True


#: Seconds for which a call that starts a transfer waits for room: the default of ``FLAGCX_P2P_XFER_TIMEOUT_MS``.
START_LIMIT = 30.0


def _error(result: "_library.XferResult", parts: Parts) -> TransferFailed:
    piece = parts.piece_of(result.iov)
    reason = parts.named_by_piece(result.reason.decode(errors="replace"))
    details = (piece, result.status, result.peer.decode(errors="replace"))
    if result.state == _library.TIMED_OUT:
        return TransferTimedOut("the transfer was not over at its deadline", *details)
    if result.state == _library.CANCELLED:
        return TransferCancelled("the transfer was cancelled", *details)
    if result.state == _library.UNKNOWN:
        return TransferFailed("the engine does not know the transfer any more", *details)
    return TransferFailed(f"the transfer failed at piece {piece}: {reason}", *details)
