"""The types of the native module. What each means stands in rust/python/src, and in `help()`."""

from collections.abc import AsyncIterator, Buffer, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, SupportsIndex, overload

from ._types import ConnectionInfo, Notification, Piece, SlowTransfer

# Numbers of 64 bits: an array of them (numpy.uint64, numpy.int64, array.array), a sequence, or one that holds for all pieces.
_Column = Buffer | Sequence[int] | int

class Engine:
    def __new__(cls, *, gpu: int = 0, settings: Mapping[str, str] | None = None) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...
    @property
    def port(self) -> int: ...
    @property
    def address(self) -> str: ...
    @property
    def session(self) -> str: ...
    def start_server(self) -> None: ...
    def connect(self, session: str) -> Connection: ...
    def register(
        self,
        buffer: Any,
        *,
        announced: bool = True,
        read_only: bool | None = None,
        fd: int | None = None,
        offset: int = 0,
    ) -> Region: ...
    def register_address(
        self,
        address: int,
        size: int,
        *,
        device: bool | None = None,
        announced: bool = True,
        read_only: bool = False,
    ) -> Region: ...
    def allocate(
        self, size: int, *, huge: bool = False, announced: bool = True, read_only: bool = False
    ) -> SharedMemory: ...
    def notifications(self) -> list[Notification]: ...
    def slow_transfers(self, older_than: float = 1.0) -> list[SlowTransfer]: ...
