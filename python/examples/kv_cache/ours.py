"""The transport over this engine."""

from typing import Any

from flagcx_p2p import Connection, Engine, Region, Transfer

from cache import new_memory
from transport import Peer, Pieces, Sending, Transport


class Ours(Transport):
    """An engine. On the path "shared" it allocates the cache itself; on the others the cache is memory of the program."""

    def __init__(self, path: str) -> None:
        self._engine = Engine()
        self._allocates = path == "shared"

    def make_cache(self, size: int, piece: int) -> Any:
        self._piece = piece
        if self._allocates:
            shared = self._engine.allocate(size)
            self._region: Region = shared
            return shared.buf
        memory = new_memory(size)
        self._region = self._engine.register(memory)
        return memory

    def offer(self) -> "dict[str, Any]":
        # Memory registered before a peer connects is announced to it.
        self._engine.start_server()
        return {"session": self._engine.session, "address": self._region.address}

    def connect(self, offer: "dict[str, Any]") -> Peer:
        connection = self._engine.connect(offer["session"])
        return _Peer(connection, self._region.address, offer["address"], self._piece)

    def messages(self, patience: float) -> "list[bytes]":
        return [notification.content for notification in self._engine.notifications(patience)]

    def close(self) -> None:
        self._engine.close()


class _Peer(Peer):
    def __init__(self, connection: Connection, here: int, there: int, piece: int) -> None:
        self._connection, self._here, self._there, self._piece = connection, here, there, piece

    def send(self, here: Pieces, there: Pieces, message: bytes) -> Sending:
        # Three columns: addresses here, addresses there, and one length for all. The message goes out when the bytes are there,
        # without anything that waits for that in this program.
        transfer = self._connection.start_write(
            self._here + here * self._piece, self._there + there * self._piece, self._piece, notify=(b"layer", message)
        )
        return _Sending(transfer)

    def path(self) -> str:
        return self._connection.info().path


class _Sending(Sending):
    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer

    def wait(self) -> None:
        self._transfer.wait()
