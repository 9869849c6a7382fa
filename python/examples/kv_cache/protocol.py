"""What decode and prefill tell each other: no bytes of the cache, only what is wanted, and where it goes."""

import os
from multiprocessing.connection import Client, Connection, Listener
from typing import NamedTuple

#: The key of both processes: what is received is unpickled, so no other process may send it.
KEY_VARIABLE = "KV_CACHE_KEY"


class Request(NamedTuple):
    """Decode wants the cache of a prompt."""

    number: int
    #: Equal prompts have equal caches.
    prompt: int
    #: Decode's blocks, in the order of the tokens.
    table: "list[int]"
    #: The layers that decode does not have.
    layers: "list[int]"


class Report(NamedTuple):
    """What a prefill process has done, sent when decode has sent None."""

    path: str
    layers_sent: int
    bytes_sent: int
    #: Of its time, what computing took.
    compute_seconds: float
    #: Prompts that were in its cache, and those that had to leave it.
    hits: int
    evicted: int


def message(request: int, layer: int) -> bytes:
    """What follows the bytes of a layer."""
    return b"%d %d" % (request, layer)


def parse_message(content: bytes) -> "tuple[int, int]":
    """Request and layer."""
    request, layer = content.split()
    return int(request), int(layer)


def listen() -> Listener:
    """Where prefill processes connect, one after the other."""
    return Listener(("127.0.0.1", 0), authkey=_key())


def connect(port: int) -> Connection:
    """To decode."""
    return Client(("127.0.0.1", port), authkey=_key())


def _key() -> bytes:
    return bytes.fromhex(os.environ[KEY_VARIABLE])
