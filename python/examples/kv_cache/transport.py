"""What the two processes need of a library that moves bytes. `ours.py` and `nixl_transport.py` are two of them."""

import abc
from typing import Any, TypeAlias

import numpy
from numpy.typing import NDArray

#: Numbers of pieces: see `Model.piece`.
Pieces: TypeAlias = NDArray[numpy.int64]


class Sending(abc.ABC):
    """Pieces under way."""

    @abc.abstractmethod
    def wait(self) -> None:
        """Until all bytes are at the peer, and the message is on its way. Raises if that cannot happen any more."""


class Peer(abc.ABC):
    """The cache of another process."""

    @abc.abstractmethod
    def send(self, here: Pieces, there: Pieces, message: bytes) -> Sending:
        """Writes pieces of the own cache over pieces of the peer's, and then sends the message."""

    @abc.abstractmethod
    def path(self) -> str:
        """How the bytes travel."""


class Transport(abc.ABC):
    """One process' end. It has one cache, of pieces of equal size."""

    @abc.abstractmethod
    def make_cache(self, size: int, piece: int) -> Any:
        """Memory of ``size`` bytes that peers may write to, as a buffer."""

    @abc.abstractmethod
    def offer(self) -> "dict[str, Any]":
        """What a peer needs for `connect`: send it there by any means."""

    @abc.abstractmethod
    def connect(self, offer: "dict[str, Any]") -> Peer:
        """The peer that made the offer."""

    @abc.abstractmethod
    def messages(self, patience: float) -> "list[bytes]":
        """The messages that have come since the last call, or the next one within so many seconds. Their bytes are here."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends all."""


def open_transport(name: str, path: str) -> Transport:
    """``name``: "ours" or "nixl"."""
    if name == "ours":
        from ours import Ours

        return Ours(path)
    from nixl_transport import Nixl

    return Nixl()
