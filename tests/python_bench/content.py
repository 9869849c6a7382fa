"""What lies in the memory of the two sides: every word of a pool is a number of its own, and another one after each `renew`.

So a write that moves nothing, or to another place, or from one, is seen.
"""

import os

import numpy

KIB, MIB = 1 << 10, 1 << 20
#: The memory of a side that is written from or to.
POOL = int(os.environ.get("PYTHON_BENCH_POOL_MIB", 1024)) * MIB
BLOCK = 4 * KIB
#: After the pool of the initiator: where the target's is read to, part by part.
SCRATCH = 16 * MIB

_WORDS = numpy.arange(BLOCK // 8, dtype=numpy.uint64)
_GENERATION = 1 << 40


def new_memory():
    """A pool, with the space after it. Every page of it is there."""
    return filled(numpy.empty(POOL + SCRATCH, dtype=numpy.uint8))


def filled(memory):
    """The same memory with the first content of a pool."""
    rows = _rows(memory)
    for first in range(0, len(rows), 1024):
        part = rows[first : first + 1024]
        part[:] = _first_words(first, first + len(part))[:, None] + _WORDS
    return memory


class Content:
    """The initiator's pool, and what the target's holds if all writes moved what they should."""

    def __init__(self, memory):
        self._rows = _rows(memory)
        self._pool, self._scratch = self._rows[: POOL // BLOCK], self._rows[POOL // BLOCK :]
        self._generation = 0
        #: The first word of each block of the target.
        self._there = _first_words(0, POOL // BLOCK)

    def renew(self):
        """Changes every word here, so that the writes to come differ from those before."""
        self._pool += numpy.uint64(_GENERATION)
        self._generation += _GENERATION

    def written(self, here, there):
        """Blocks of these numbers here have been written over those there."""
        self._there[there] = here.astype(numpy.uint64) * numpy.uint64(BLOCK) + numpy.uint64(self._generation)

    def is_there(self, read):
        """Whether the target has all that was written, and nothing else. `read(offset, size)` puts its bytes after the pool."""
        self._scratch[:] = 0
        blocks = len(self._scratch)
        for first in range(0, len(self._there), blocks):
            part = self._there[first : first + blocks]
            read(first * BLOCK, len(part) * BLOCK)
            if not (self._scratch[: len(part)] == part[:, None] + _WORDS).all():
                return False
        return True


def _rows(memory):
    """A row of words for each block."""
    return memory.view(numpy.uint64).reshape(-1, BLOCK // 8)


def _first_words(first, last):
    return numpy.arange(first * BLOCK, last * BLOCK, BLOCK, dtype=numpy.uint64)
