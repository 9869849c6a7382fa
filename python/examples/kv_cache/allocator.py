"""A paged allocator: a sequence gets blocks from anywhere in the cache, and its blocks stay until others need them."""

import random
from collections import OrderedDict


class Allocator:
    """The blocks of one cache, by sequence. A sequence that is not in use is evicted when blocks are needed, the oldest first."""

    def __init__(self, blocks: int, seed: int) -> None:
        #: Shuffled, as the free list of a server is after an hour: the blocks of a sequence lie nowhere near each other.
        self._free = list(range(blocks))
        random.Random(seed).shuffle(self._free)
        self._in_use: "dict[int, list[int]]" = {}
        self._unused: "OrderedDict[int, list[int]]" = OrderedDict()
        #: How many sequences had to go.
        self.evicted = 0

    def take(self, sequence: int) -> "list[int] | None":
        """The block table of a sequence that is still here; it is in use from now on."""
        table = self._unused.pop(sequence, None)
        if table is not None:
            self._in_use[sequence] = table
        return table

    def allocate(self, sequence: int, count: int) -> "list[int]":
        """A block table of ``count`` blocks. MemoryError if the sequences in use leave too few."""
        while len(self._free) < count and self._unused:
            _, table = self._unused.popitem(last=False)
            self._free += table
            self.evicted += 1
        if len(self._free) < count:
            raise MemoryError(f"{count} blocks are needed and {len(self._free)} are free, the others are in use")
        table = [self._free.pop() for _ in range(count)]
        self._in_use[sequence] = table
        return table

    def release(self, sequence: int) -> None:
        """The sequence is not in use any more. It stays until its blocks are needed."""
        self._unused[sequence] = self._in_use.pop(sequence)
