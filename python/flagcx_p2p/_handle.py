"""The library's engine, the calls that are inside it, and its end.

Python runs signal handlers in the main thread, and so raises ``KeyboardInterrupt`` there, only where a call has returned, a
function begins or a loop turns (CPython 3.10 and later). Lines here that must take effect together have no such place
between them, and what an interruption leaves behind is always safe: an engine that is ended later, memory that is freed later.
"""

import collections
import ctypes
import itertools
import os
import sys
import threading
import time
from typing import Any, Deque, Dict, List, Optional

from ._errors import P2pError
from ._library import Library
from ._single import Single

_keep = ctypes.pythonapi.Py_IncRef
_release = ctypes.pythonapi.Py_DecRef
for _function in (_keep, _release):
    _function.argtypes, _function.restype = [ctypes.py_object], None


class EngineHandle(Single):
    """An engine of the library. It is destroyed when it is closed and no thread is inside a call with it."""

    _advice = "create an Engine in the other process"

    # Where the interpreter ends, an engine may outlive the globals of this module.
    _pid_now = staticmethod(os.getpid)
    _thread = staticmethod(threading.get_ident)
    _finalizing = staticmethod(sys.is_finalizing)
    _pause = staticmethod(time.sleep)
    _release = staticmethod(_release)

    def __init__(self, library: Library) -> None:
        self.library = library
        #: What keeps registered memory alive, by registration.
        self.memory: Dict[object, Any] = {}
        #: Allocated memory to which nothing refers any more, by address.
        self.unfreed: Deque[int] = collections.deque()
        #: Whether nothing touches the memory any more.
        self.ended = False
        self._pid = os.getpid()
        self._closing = False
        # The thread of each call that is inside the library with this engine's pointer or one of its connections'.
        self._callers: Dict[object, int] = {}
        # Held while the engine is destroyed; reentrant, for a signal handler that closes it in that thread.
        self._ending = threading.RLock()
        self._destroyer: Optional[int] = None
        self._made: List[Optional[int]] = []
        # The memory lives until the library is done with it, whatever becomes of this object.
        _keep(self.memory)
        # One call, so that an exception cannot come between the library's engine and the list that holds it.
        self._made.extend(itertools.starmap(library.engine_create, ((),)))
        if self.pointer is None:
            self.ended = True
            raise library.error()

    @property
    def pointer(self) -> Optional[int]:
        """The library's engine."""
        return self._made[0]

    def __del__(self) -> None:
        if getattr(self, "_made", None) and not self.ended:
            self.close()

    def check_process(self) -> None:
        """Refuses in a process that was forked from the engine's."""
        if self._pid_now() != self._pid:
            raise P2pError(
                f"the engine belongs to another process, and this one was forked from process {self._pid}: "
                "create an Engine of its own here"
            )

    def call(self, function: Any, *arguments: Any) -> Any:
        """Calls the library with the engine's pointer, or one of its connections', which stay valid until it returns.

        All calls with such a pointer go through here.
        """
        self.check_process()
        call = object()
        try:
            # Before the look at `_closing`: a thread that closes in between finds this call, or is seen by it.
            self._callers[call] = self._thread()
            if self._closing:
                raise P2pError("the engine is closed")
            return function(*arguments)
        finally:
            self._callers.pop(call, None)
            if self._closing:
                self._destroy_unused()

    def free_unused(self) -> None:
        """Gives back the memory to which nothing refers. What is refused, for the program has registered parts of it by their
        addresses, is tried again at the next call, and when the engine has ended."""
        for _ in range(len(self.unfreed)):
            try:
                # Taken first: an address that is given back may be that of other memory.
                address = self.unfreed.popleft()
            except IndexError:  # another thread has it
                return
            if not self._free(address):
                self.unfreed.append(address)

    def _free(self, address: int) -> bool:
        if not self.ended:
            try:
                freed: bool = self.call(self.library.free_shared, self.pointer, address) == 0
                return freed
            except P2pError:  # the engine is closed, perhaps only just
                self.close()
        return self.ended and self.library.free_shared(None, address) == 0

    def close(self) -> None:
        """Refuses new calls, waits for those that other threads are in, and destroys the engine.

        From within a call, as a signal handler runs, it returns at once: the engine ends with that call. Does nothing in
        a forked process. Where the interpreter ends, threads that are inside a call never return from it as far as Python
        can tell; the engine is then left to the end of the process, and its memory with it.
        """
        if self._pid_now() != self._pid:
            return
        self._closing = True
        while not self.ended:
            self._destroy_unused()
            mine = self._thread()
            if self.ended or self._finalizing() or self._destroyer == mine or mine in self._callers.values():
                return
            self._pause(0.002)

    def _destroy_unused(self) -> None:
        """Destroys the engine of a closing handle, unless there are calls: the last one comes here as well."""
        if self._finalizing():
            # No other thread runs, and one that was frozen may hold the lock.
            self._destroy()
        else:
            with self._ending:
                self._destroy()

    def _destroy(self) -> None:
        mine, pointer = self._thread(), self.pointer
        if self._callers or self._destroyer is not None:
            return
        try:
            self._destroyer = mine
            self.library.engine_destroy(pointer)
        finally:
            memory, self.memory, self.ended = self.memory, {}, True
        self._release(memory)
        self.free_unused()
