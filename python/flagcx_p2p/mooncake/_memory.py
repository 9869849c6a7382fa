"""The memory of one engine: registered by the program, or given to it."""

import bisect
import contextlib
import threading
from collections.abc import Iterable

from .._errors import P2pError
from .._native import Engine, Region, SharedMemory
from ._codes import FAILED, NOT_REGISTERED, REGISTERED_ALREADY, Refused


class Memory:
    """Regions by their first addresses. No two share a byte, as Mooncake wants it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._regions: "dict[int, Region]" = {}
        self._starts: "list[int]" = []  # sorted

    def register(self, engine: Engine, address: int, size: int) -> None:
        if size <= 0 or address <= 0:
            raise Refused(FAILED, f"{size} bytes at {address:#x} are no memory")
        with self._lock:
            self._refuse_overlap(address, size)
            self._keep(_register(engine, address, size))

    def register_all(self, engine: Engine, ranges: "Iterable[tuple[int, int]]") -> None:
        """All of them, or none."""
        done: "list[int]" = []
        try:
            for address, size in ranges:
                self.register(engine, address, size)
                done.append(address)
        except BaseException:
            for address in done:
                # Another thread may have done it, and one that fails must not keep the others.
                with contextlib.suppress(P2pError, Refused):
                    self.unregister(address)
            raise

    def unregister(self, address: int) -> None:
        """Waits for the transfers that use it."""
        region = self._take(address, given=False)
        if region is None:
            raise Refused(NOT_REGISTERED, f"no registered memory begins at {address:#x}")
        self._close(region)

    def allocate(self, engine: Engine, size: int) -> int:
        """Memory of the engine; `free` takes it back."""
        region = engine.allocate(max(size, 1))
        with self._lock:
            self._keep(region)
        return region.address

    def free(self, address: int) -> None:
        region = self._take(address, given=True)
        if region is None:
            raise Refused(FAILED, f"allocate_managed_buffer gave no memory at {address:#x}, or it was freed")
        self._close(region)

    def holds(self, address: int, size: int) -> bool:
        """Whether one region has all these bytes."""
        with self._lock:
            return self._holds(address, size)

    def missing(self, ranges: "Iterable[tuple[int, int]]") -> "list[tuple[int, int]]":
        """Those of which no region has all bytes. None twice."""
        with self._lock:
            return list(dict.fromkeys(one for one in ranges if one[1] and not self._holds(*one)))

    def _take(self, address: int, given: bool) -> "Region | None":
        with self._lock:
            region = self._regions.get(address)
            if region is None or isinstance(region, SharedMemory) != given:
                return None
            del self._regions[address]
            self._starts.remove(address)
            return region

    def _close(self, region: Region) -> None:
        try:
            region.close()
        except BaseException:
            if not region.closed:
                with self._lock:
                    self._keep(region)
            raise

    def _keep(self, region: Region) -> None:
        self._regions[region.address] = region
        bisect.insort(self._starts, region.address)

    def _refuse_overlap(self, address: int, size: int) -> None:
        at = bisect.bisect_left(self._starts, address + size)
        if at and (last := self._regions[self._starts[at - 1]]).address + last.size > address:
            text = f"{size} bytes at {address:#x}: registered already, with the {last.size} bytes at {last.address:#x}"
            raise Refused(REGISTERED_ALREADY, text)

    def _holds(self, address: int, size: int) -> bool:
        at = bisect.bisect_right(self._starts, address)
        if not at:
            return False
        region = self._regions[self._starts[at - 1]]
        return address + size <= region.address + region.size


def _register(engine: Engine, address: int, size: int) -> Region:
    try:
        return engine.register_address(address, size)
    except P2pError as error:
        # A file that is mapped for reading can be sent. A second failure has nothing to do with that.
        try:
            return engine.register_address(address, size, read_only=True)
        except P2pError:
            raise error from None
