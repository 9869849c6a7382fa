"""Transfers of local memory that the program has not registered, which Mooncake permits over TCP."""

import contextlib
from collections.abc import Callable, Iterable
from typing import TypeVar

from .._errors import P2pError, QueueFull, TransferFailed
from .._native import Engine
from ._codes import LOG
from ._memory import Memory

_Answer = TypeVar("_Answer")


def with_memory(
    memory: Memory,
    engine: Engine,
    ranges: "Iterable[tuple[int, int]]",
    call: "Callable[[], _Answer]",
    until: contextlib.ExitStack,
) -> _Answer:
    """Calls; if that is refused for local memory without a region, once more with regions that are there until `until` ends.

    Peers do not see these regions. This costs a registration for each call, so the log tells it.
    """
    try:
        return call()
    except (TransferFailed, QueueFull):
        raise
    except P2pError:
        missing = memory.missing(ranges)
        if not missing:
            raise
        LOG.warning("%d ranges here are not registered, the first at %#x: registered for this call alone", len(missing), missing[0][0])
        for address, size in missing:
            until.enter_context(engine.register_address(address, size, announced=False))
        return call()
