"""Transfers that were started, by the numbers that the program has for them."""

import contextlib
import itertools
import threading
import time

from .._errors import P2pError, TransferFailed, TransferTimedOut
from .._native import Transfer
from ._codes import FAILED, LOG, TIMED_OUT, Refused

_DONE, _RUNNING = 1, 0


class Batch:
    """A started transfer. Without one, it has ended: well, or with `error`."""

    def __init__(
        self,
        transfer: "Transfer | None" = None,
        seconds: float = 0,
        lent: "contextlib.ExitStack | None" = None,
        error: "Exception | None" = None,
    ) -> None:
        self._transfer = transfer
        self._deadline = time.monotonic() + seconds
        self._lent = lent
        self._error = error
        self._restart = threading.Lock()

    def wait(self, block: bool) -> int:
        """1 when it is done, less than 0 when it failed, 0 while it runs. To `block` is to wait for the end, or for its deadline.

        At its deadline it is stopped. When this answers anything but 0, nothing touches its memory any more.
        """
        code = self._outcome(block)
        if code != _RUNNING and self._lent is not None:
            try:
                self._lent.close()
            except P2pError as error:
                LOG.error("transfer: %s", error)
                return FAILED
        return code

    def _outcome(self, block: bool) -> int:
        transfer = self._transfer
        try:
            if self._error is not None:
                raise self._error
            if transfer is not None:
                transfer.wait(max(0.0, self._deadline - time.monotonic()) if block else 0.0)
            return _DONE
        except TimeoutError:
            # One that was waited for is over time, however early the wait came back.
            if transfer is None or (not block and time.monotonic() < self._deadline):
                return _RUNNING
            return self._stop(transfer)
        except (P2pError, Refused, ValueError) as error:
            if transfer is not None and self._is_started_again(transfer):
                return self._outcome(block)
            LOG.error("transfer: %s", error)
            return TIMED_OUT if isinstance(error, TransferTimedOut) else FAILED

    def _is_started_again(self, failed: Transfer) -> bool:
        """Once, if the peer had registered the memory again before the transfer was started. Several threads may ask."""
        with self._restart, contextlib.suppress(P2pError):
            if self._transfer is failed and (again := failed._again(True)) is not None:
                self._transfer = again
            return self._transfer is not failed
        return False

    def _stop(self, transfer: Transfer) -> int:
        try:
            transfer.cancel()
            transfer.wait(0.0)
        except TransferFailed as error:
            LOG.error("transfer: not over at its deadline: %s", error)
            return TIMED_OUT
        except P2pError as error:
            LOG.error("transfer: %s", error)
            return FAILED
        return _DONE  # it ended before it could be stopped


class Batches:
    """The transfers that were not reported as ended yet. A number is never used again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1 << 20)  # no number can be taken for a status
        self._batches: "dict[int, Batch]" = {}

    def add(self, batch: Batch) -> int:
        with self._lock:
            number = next(self._numbers)
            self._batches[number] = batch
        return number

    def check(self, number: int, block: bool = False) -> int:
        """As `Batch.wait`; after another answer than 0 the number means nothing."""
        batch = self._batches.get(number)
        if batch is None:
            LOG.error("transfer %d: there is none of this number, or its end was reported before", number)
            return FAILED
        code = batch.wait(block)
        if code != _RUNNING:
            self._batches.pop(number, None)
        return code
