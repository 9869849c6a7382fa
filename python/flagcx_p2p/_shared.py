"""Shared memory that the engine allocates."""

import ctypes
import os
import weakref
from typing import Any, List

from ._errors import P2pError
from ._handle import EngineHandle
from ._region import Region


class SharedMemory(Region):
    """Registered memory of :meth:`Engine.allocate`: a region, and the bytes themselves.

    ``memory.buf`` is a ``memoryview`` of them, of which ``numpy.frombuffer(memory.buf, ...)`` makes an array; from Python 3.12
    on this object is such a buffer as well.

    Closing it ends the registration. The memory is given back when nothing refers to it any more: neither this object nor a
    view or an array of it, whichever goes last, also after the engine's end. A forked process shares the bytes.
    """

    _advice = "tell the peer its address and size, or allocate the memory with an Engine of the other process"

    def __init__(self, handle: EngineHandle, size: int) -> None:
        super().__init__(handle, 0, size)
        # What all views refer to. In a list, so that it is there or not, whatever interrupts.
        self._bytes: List[Any] = []

    def __repr__(self) -> str:
        return f"SharedMemory({self.address:#x}, {self.size} bytes)"

    @property
    def buf(self) -> memoryview:
        """The bytes, writable, as long as this is not closed. Views that were taken before remain valid."""
        try:
            return memoryview(self._bytes[0]).cast("B")
        except IndexError:
            raise P2pError(f"{self} has been closed: it has no bytes any more") from None

    def __buffer__(self, flags: int) -> memoryview:
        return self.buf

    def close(self) -> None:
        """Ends the registration, as that of a region, and gives up the memory, which stays as long as views of it are there."""
        super().close()
        if not self._open:
            self._bytes.clear()

    def _allocate(self, flags: int) -> None:
        """Allocates and registers it; what has happened is known in any case."""
        handle, start = self._handle, ctypes.c_void_p()
        library = handle.library
        handle.check_process()
        try:
            number, address = ctypes.byref(self._number), ctypes.byref(start)
            answer = handle.call(library.allocate, handle.pointer, self.size, flags, address, number)
            self._open = self.number != 0
            if answer != 0:
                raise library.error()
        finally:
            self.address = start.value or 0
            if self.address:
                array = (ctypes.c_uint8 * self.size).from_address(self.address)
                # Not when the interpreter ends: views may be in use then, and the process gives everything back.
                weakref.finalize(array, _free, handle, self.address, os.getpid()).atexit = False
                self._bytes.append(array)


def _free(handle: EngineHandle, address: int, pid: int) -> None:
    """Gives memory back to which nothing refers any more."""
    if os.getpid() != pid:
        return
    handle.unfreed.append(address)
    handle.free_unused()
