"""What the layers compute here: numbers that say which piece they belong to, so that the other side can check every byte."""

from typing import Any, TypeAlias

import numpy
from numpy.typing import NDArray

from model import Model

Words: TypeAlias = NDArray[numpy.uint64]

# An odd number with its ones spread: multiples of it differ in most bits.
_SPREAD = 0x9E37_79B9_7F4A_7C15
_ONES = (1 << 64) - 1


class Content:
    """Writes and checks the pieces of a cache, given as words: [layer, half, block, word]."""

    def __init__(self, model: Model, words: Words) -> None:
        self._words = words
        count = model.piece_bytes // 8
        self._noise: Words = numpy.random.default_rng(1).integers(0, _ONES, count, dtype=numpy.uint64)
        self._scratch: Words = numpy.empty(count, dtype=numpy.uint64)

    def compute(self, sequence: int, layer: int, table: "list[int]") -> None:
        """The keys and values of one layer of a sequence: what a model does for milliseconds on a GPU."""
        for half in range(2):
            for index, block in enumerate(table):
                numpy.add(self._noise, _key(sequence, layer, half, index), out=self._words[layer, half, block])

    def wrong_pieces(self, sequence: int, layers: int, table: "list[int]") -> int:
        """How many pieces of a sequence have a byte that is not what was computed."""
        wrong = 0
        for layer in range(layers):
            for half in range(2):
                for index, block in enumerate(table):
                    numpy.subtract(self._words[layer, half, block], self._noise, out=self._scratch)
                    wrong += not (self._scratch == _key(sequence, layer, half, index)).all()
        return wrong


def _key(sequence: int, layer: int, half: int, index: int) -> Any:
    """A number of its own for every piece. A word of the piece is that plus noise, so each word of a wrong piece is wrong."""
    number = ((sequence << 8 | layer) << 1 | half) << 16 | index
    return numpy.uint64(number * _SPREAD & _ONES)
