"""Awaits in asyncio, or in another loop with ``add_reader``: no thread waits, and nothing is asked again and again.

    a worker's thread -- token --> LoopQueue (an eventfd) -- readable --> the loop --> the future of that token

Each loop has one :class:`_Reactor` with one descriptor, from its first await of something that was under way until it is closed.
"""

from __future__ import annotations

import asyncio
import math
import os
import select
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING, Any

from ._errors import P2pError, QueueFull, TransferCancelled, TransferFailed
from ._native import LoopQueue, seconds

if TYPE_CHECKING:
    from ._native import Connection, Engine, Transfer
    from ._types import Notification

#: How long one call waits for room, and how long it sleeps before it tries again: at first, and at most.
_ROOM_LIMIT = 30.0
_FIRST_PAUSE = 0.0002
_LAST_PAUSE = 0.005

#: `TransferFailed.status` of a wrong key, of a range outside of its region, and of a missing right.
_REMOTE_ACCESS = 10

#: How long one call of poll may wait, in seconds: it takes milliseconds, as an int of C.
_POLL_LIMIT = 3600.0


class _Reactor:
    """What a loop awaits of the engine's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.queue = LoopQueue()
        self.futures: dict[int, asyncio.Future[None]] = {}
        self.last = 0
        #: Calls that wait for room, by their connections.
        self.lines: dict[Connection, _Line] = {}
        loop.add_reader(self.queue.fileno(), self._wake)

    def _wake(self) -> None:
        for token in self.queue.take():
            future = self.futures.pop(token, None)
            if future is not None and not future.done():
                future.set_result(None)

    def future(self, loop: asyncio.AbstractEventLoop) -> tuple[int, asyncio.Future[None]]:
        """A future that is done once its token has been pushed."""
        self.last += 1
        future = self.futures[self.last] = loop.create_future()
        return self.last, future


class _Line:
    """Calls that wait for room on one connection, in the order in which they came: the first of them tries."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.calls = 0


#: Of the loops that are not gone. Changed under the lock.
_reactors: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Reactor] = weakref.WeakKeyDictionary()
_changes = threading.Lock()


def _renew_lock() -> None:
    """In a forked process: a thread that is not there may have held it."""
    global _changes
    _changes = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def _reactor(loop: asyncio.AbstractEventLoop) -> _Reactor:
    reactor = _reactors.get(loop)
    return _new_reactor(loop) if reactor is None else reactor


def _new_reactor(loop: asyncio.AbstractEventLoop) -> _Reactor:
    reactor = _Reactor(loop)
    with _changes:
        # What was awaited in a loop that has been closed is never done, and would keep the loop.
        for other in [other for other in _reactors if other.is_closed()]:
            del _reactors[other]
        _reactors[loop] = reactor
    return reactor


def wait(transfer: Transfer) -> Generator[Any, None, None]:
    """What ``await transfer`` does while it is under way."""
    loop = asyncio.get_running_loop()
    reactor = _reactor(loop)
    token, future = reactor.future(loop)
    try:
        if transfer._watch(reactor.queue, token):
            yield from future
    except GeneratorExit:  # the coroutine is dropped: there is no task, and nothing may be awaited
        raise
    except BaseException:
        yield from _stop(transfer, loop).__await__()
        raise
    finally:
        if reactor.futures.pop(token, None) is not None:
            transfer._unwatch(reactor.queue, token)
    transfer._result()


async def _stop(transfer: Transfer, loop: asyncio.AbstractEventLoop) -> None:
    """Cancels it; nothing touches its memory afterwards. Does not raise CancelledError: its callers do already."""
    if transfer._try_cancel():
        return
    try:
        stopped = loop.run_in_executor(None, transfer.cancel)
    except RuntimeError:  # the executor or the interpreter ends
        return transfer.cancel()
    await settled(stopped)


async def settled(future: asyncio.Future[Any]) -> BaseException | None:
    """Waits until it is done, cancelled or not; answers the last CancelledError that came meanwhile."""
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled


async def move(begin: Callable[..., Transfer | None], arguments: tuple[Any, ...], timeout: float | None) -> None:
    """Begins a transfer, without blocking the loop, and waits for its end."""
    if timeout is None:
        transfer = await _started(begin, arguments)
        try:
            return await transfer
        except TransferFailed as error:
            again = await _again(transfer, error.status)
            if again is None:
                raise
        return await again
    begun: Transfer | None = None
    try:
        async with asyncio.timeout(timeout) as limit:
            begun = await _started(begin, arguments)
            try:
                await begun
            except TransferFailed as error:
                again = await _again(begun, error.status)
                if again is None:
                    raise
                begun = again
                await begun
    except TimeoutError:
        if not limit.expired():
            raise
        connection: Connection = begin.__self__  # type: ignore[attr-defined]
        if begun is None:
            raise connection._timed_out(None, timeout) from None
        try:
            begun._result()  # it may have ended otherwise before
        except TransferCancelled:
            raise connection._timed_out(begun, timeout) from None


async def _started(begin: Callable[..., Transfer | None], arguments: tuple[Any, ...]) -> Transfer:
    """Begins it as soon as there is room."""
    connection: Connection = begin.__self__  # type: ignore[attr-defined]
    loop = asyncio.get_running_loop()
    reactor = _reactor(loop)
    line = reactor.lines.get(connection)
    if line is None:
        try:
            return begin(False, *arguments) or await _asked(begin, arguments, loop)
        except QueueFull:
            line = reactor.lines.setdefault(connection, _Line())
    line.calls += 1
    try:
        async with line.turn:
            return await _when_free(begin, arguments, loop)
    finally:
        line.calls -= 1
        if line.calls == 0:
            del reactor.lines[connection]


async def _when_free(
    begin: Callable[..., Transfer | None], arguments: tuple[Any, ...], loop: asyncio.AbstractEventLoop
) -> Transfer:
    """Tries again and again, while other calls in this loop for this connection wait for their turn."""
    pause, until = _FIRST_PAUSE, loop.time() + _ROOM_LIMIT
    while True:
        try:
            return begin(False, *arguments) or await _asked(begin, arguments, loop)
        except QueueFull:
            if loop.time() >= until:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LAST_PAUSE)


async def _again(failed: Transfer, status: int) -> Transfer | None:
    """Starts it once more, if the peer had registered the memory again and the key was that of before."""
    if status != _REMOTE_ACCESS:
        return None
    return await _on_thread(asyncio.get_running_loop(), failed._again, True)


async def _asked(
    begin: Callable[..., Transfer | None], arguments: tuple[Any, ...], loop: asyncio.AbstractEventLoop
) -> Transfer:
    """Begins it on another thread: the peer is asked for a region first, which takes up to a second."""
    started = await _on_thread(loop, begin, True, *arguments)
    assert started is not None  # it may ask there
    return started


async def _on_thread(loop: asyncio.AbstractEventLoop, start: Callable[..., Transfer | None], *arguments: Any) -> Transfer | None:
    """What `start` answers on another thread. When the task is cancelled meanwhile, the transfer is stopped."""
    started: asyncio.Future[Transfer | None] = loop.run_in_executor(None, start, *arguments)
    cancelled = await settled(started)
    if cancelled is None:
        return started.result()
    if started.exception() is None and (transfer := started.result()) is not None:
        await _stop(transfer, loop)
    raise cancelled


class Notified(AsyncIterator["Notification"]):
    """What ``Engine.notified`` answers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __aiter__(self) -> Notified:
        return self

    async def __anext__(self) -> Notification:
        """The next notification; ends when the engine is closed."""
        engine = self._engine
        received: list[Notification] = []
        try:
            while True:
                if self._has_taken(received):
                    return received[0]
                loop = asyncio.get_running_loop()
                reactor = _reactor(loop)
                token, future = reactor.future(loop)
                try:
                    # Again: one may have come before the arrivals were watched.
                    if engine._watch(reactor.queue, token) and not self._has_taken(received):
                        await future
                finally:
                    if reactor.futures.pop(token, None) is not None:
                        engine._unwatch(reactor.queue, token)
                if received:
                    return received[0]
        except BaseException as error:
            if received:
                engine._give_back(received)
            if isinstance(error, P2pError) and engine.closed:
                raise StopAsyncIteration from None
            raise

    def _has_taken(self, received: list[Notification]) -> bool:
        self._engine._receive(received, False)
        return bool(received)


def notifications(self: Engine, timeout: float | None = 0.0) -> list[Notification]:
    """Takes all notifications that this engine has received, in the order of their arrival.

    ``timeout``: for how many seconds to wait for one, if there is none; None, or more than a
    clock can tell, waits until one comes; nan is a ``ValueError``. By default it never waits. Ctrl-C
    ends the wait, and so does ``Engine.close``: :class:`P2pError`. An exception of a signal handler, such as ``KeyboardInterrupt``,
    loses none: the next call returns them. Any thread may call it; each notification goes to one caller, of this or of ``notified``.
    """
    # In Python, because handlers run when a native method has returned: here its answer can still be given back.
    received: list[Notification] = []
    if timeout != 0:
        timeout = seconds(timeout)
    try:
        self._receive(received, True)
        if not received and timeout != 0:
            _receive_next(self, received, timeout)
        return received
    except BaseException:
        self._give_back(received)
        raise


def _receive_next(engine: Engine, received: list[Notification], timeout: float | None) -> None:
    """Waits for notifications by a descriptor of its own, as a loop does."""
    until = None if timeout is None else time.monotonic() + timeout
    queue = LoopQueue()
    arrivals = select.poll()
    arrivals.register(queue.fileno(), select.POLLIN)
    token = 0
    while not received:
        # It is told once. One may have come just before it was watched.
        engine._watch(queue, token)
        try:
            engine._receive(received, True)
            left = None if until is None else until - time.monotonic()
            if received or (left is not None and left <= 0):
                return
            arrivals.poll(1000 * (_POLL_LIMIT if left is None else min(left, _POLL_LIMIT)))
        finally:
            engine._unwatch(queue, token)
        queue.take()
        engine._receive(received, True)
