"""Registered memory."""

import ctypes
import threading
from types import TracebackType
from typing import Any, Optional, Type

from ._errors import P2pError
from ._handle import EngineHandle
from ._single import Single


class Region(Single):
    """Registered memory. Close it, or use it in a ``with`` statement; its engine's end closes it as well."""

    _advice = "tell the peer its address and size, or register the memory with an Engine of the other process"

    def __init__(self, handle: EngineHandle, address: int, size: int) -> None:
        self._handle = handle
        self._number = ctypes.c_uint64()
        # Taken by the thread that closes it, so that others wait; reentrant, for a signal handler that closes it in that thread.
        self._closing = threading.RLock()
        self._open = False
        # Names what keeps its memory alive: its own id may be another region's once it is gone.
        self._key = object()
        #: Its first byte, which peers name.
        self.address = address
        #: Bytes.
        self.size = size

    @property
    def number(self) -> int:
        """Its id in the engine."""
        return self._number.value

    @property
    def closed(self) -> bool:
        """Whether it or its engine has been closed. Transfers refuse a closed region."""
        return not self._open or self._handle.ended

    def __enter__(self) -> "Region":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Region({self.address:#x}, {self.size} bytes)"

    def close(self) -> None:
        """Ends the registration. Waits for this engine's transfers on it. Repeats do nothing.

        Ctrl-C is seen when the transfers have ended. In a forked process it does nothing: the registration is the
        parent's.
        """
        try:
            self._handle.check_process()
        except P2pError:
            return
        with self._closing:
            if self._open:
                try:
                    self._handle.call(self._deregister)
                except P2pError:  # the engine is closed, perhaps only just
                    self._handle.close()
                    self._open = not self._handle.ended
            if not self._open:
                self._handle.memory.pop(self._key, None)
        self._handle.free_unused()

    def _register(self, flags: int, owner: Any, fd: Optional[int] = None, offset: int = 0) -> None:
        """Registers it; what has happened is known in any case, also when an exception comes in between."""
        handle, library = self._handle, self._handle.library
        handle.check_process()
        handle.memory[self._key] = owner
        try:
            number, memory = ctypes.byref(self._number), (handle.pointer, self.address, self.size)
            if fd is None:
                answer = handle.call(library.register, *memory, flags, number)
            else:
                answer = handle.call(library.register_shared, *memory, fd, offset, flags, number)
            self._open = self.number != 0
            if answer != 0:
                raise handle.library.error()
        except BaseException:
            self._open = self.number != 0
            self.close()
            raise

    def _deregister(self) -> None:
        handle, number = self._handle, self.number
        # Not twice, whatever interrupts: the same range may have been registered more than once, under one number.
        self._open = False
        handle.library.deregister(handle.pointer, number)
