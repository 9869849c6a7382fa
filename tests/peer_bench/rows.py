"""What is measured: the rows, and one sample of one row by one system."""

from dataclasses import dataclass

from systems import CROSS_MEMORY, FILE, SHARED, TCP

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# Bytes of a block, blocks of a transfer.
CASES = [(4 * KIB, 1), (4 * KIB, 64), (4 * KIB, 1024), (64 * KIB, 1), (64 * KIB, 64), (64 * KIB, 1024), (MIB, 1),
         (MIB, 32), (16 * MIB, 1)]
OPERATIONS = ["put", "get"]
# Transfers with blocks of their own, which are used in turn: as many as usual, one, and all 4 KiB blocks of a pool.
SETS, ONE_SET, ALL_BLOCKS = 16, 1, 16384


@dataclass(frozen=True)
class Row:
    """Transfers of `batch` blocks of `size` bytes, one after the other, while `burners` programs use processors."""

    op: str
    size: int
    batch: int
    sets: int = SETS
    burners: int = 0
    paths: tuple = (CROSS_MEMORY, TCP, SHARED)

    @property
    def by_latency(self):
        """Whether one transfer's time is compared instead of a rate."""
        return self.size * self.batch <= 4 * KIB or self.burners > 0

    @property
    def is_plotted(self):
        return self.sets == SETS and self.burners == 0 and FILE not in self.paths

    def is_for(self, system):
        """Whether it is measured of a system. Limits have no time to wait for processors."""
        if system.path not in self.paths or (self.burners and system.is_limit):
            return False
        return not system.is_for_calls or (self.by_latency and not self.burners)

    def __str__(self):
        unit, name = next(unit for unit in [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")] if self.size >= unit[0])
        sets = {SETS: "", ONE_SET: ", one block", ALL_BLOCKS: ", all blocks"}[self.sets]
        burners = f", {self.burners} burners" if self.burners else ""
        return f"{self.op} {self.batch} x {self.size // unit} {name}{sets}{burners}"


USUAL = [Row(op, size, batch) for size, batch in CASES for op in OPERATIONS]
# In the caches and out of them.
BLOCKS = [Row(op, 4 * KIB, 1, sets=sets, paths=(SHARED,)) for sets in [ONE_SET, ALL_BLOCKS] for op in OPERATIONS]
BURNING = [Row(op, size, 1, burners=2) for size in [4 * KIB, 64 * KIB] for op in OPERATIONS]
WHOLE_FILE = Row("put", 2 * GIB, 1, paths=(FILE,))
ROWS = [*USUAL, *BLOCKS, *BURNING, WHOLE_FILE]


@dataclass(frozen=True)
class Sample:
    """What a driver answers: gigabytes (10^9) a second, microseconds a transfer, seconds of processor time a GiB."""

    gbps: float
    p50_us: float
    p99_us: float
    cpu_initiator: float
    cpu_target: float
