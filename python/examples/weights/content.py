"""What training computes here: numbers that say which version, tensor and row they belong to, so that every byte can be checked."""

from typing import Any

import numpy

from state import Words, rows_of

# Rows that are compared at a time: few enough for the processor's caches.
_CHUNK = 256
# An odd number with its ones spread: multiples of it differ in most bits.
_SPREAD = 0x9E37_79B9_7F4A_7C15
_ONES = (1 << 64) - 1
_NOISE: Words = numpy.random.default_rng(1).integers(0, _ONES, 192, dtype=numpy.uint64)


def train(state: "dict[str, Any]", version: int) -> None:
    """Makes the state of a version."""
    for number, tensor in enumerate(state.values()):
        rows = rows_of(tensor)
        numpy.add(_NOISE, _keys(version, number, len(rows)), out=rows)


def wrong_tensors(state: "dict[str, Any]", version: int) -> int:
    """How many tensors have a byte that is not of this version."""
    return sum(not _is_right(rows_of(tensor), version, number) for number, tensor in enumerate(state.values()))


def _is_right(rows: Words, version: int, number: int) -> bool:
    keys = _keys(version, number, len(rows))
    return all(
        numpy.array_equal(rows[first : first + _CHUNK], _NOISE + keys[first : first + _CHUNK])
        for first in range(0, len(rows), _CHUNK)
    )


def _keys(version: int, number: int, rows: int) -> Words:
    """A number of its own for each row: a column."""
    first = (version << 16 | number) << 24
    return numpy.arange(first, first + rows, dtype=numpy.uint64)[:, None] * numpy.uint64(_SPREAD)
