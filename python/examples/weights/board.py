"""Which version there is: two numbers in the trainer's memory, which receivers read as they read the tensors.

The trainer keeps two states, and writes the versions to them in turn. A receiver that has read version N has all of it if the
trainer has not begun version N + 2 meanwhile, which goes to the same tensors:

    trainer    begins N+2: BEGUN = N+2    writes tensors    PUBLISHED = N+2
    receiver   reads PUBLISHED            reads tensors     reads BEGUN: less than N+2, or it reads the newer version

So the trainer never waits for a receiver, and needs not know how many there are.
"""

import threading
from typing import Any

import numpy

PUBLISHED, BEGUN = 0, 1
STATES = 2

_fence = threading.Lock()


def new_board() -> Any:
    """The two numbers, of 64 bits."""
    return numpy.zeros(2, dtype=numpy.int64)


def put(board: Any, which: int, version: int) -> None:
    """Changes a number, after all that was written before and before all that is written after."""
    with _fence:  # a lock is also what keeps a processor from changing the order
        board[which] = version
    with _fence:
        pass
