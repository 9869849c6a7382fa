"""What is measured: the rows, and one sample of one row by one system."""

from dataclasses import dataclass

KIB, MIB = 1 << 10, 1 << 20

# Bytes of a block, blocks of a transfer.
CASES = [(4 * KIB, 1), (4 * KIB, 64), (4 * KIB, 1024), (64 * KIB, 1), (64 * KIB, 64), (64 * KIB, 1024), (MIB, 1),
         (MIB, 32), (16 * MIB, 1)]
OPERATIONS = ["put", "get"]


@dataclass(frozen=True)
class Row:
    """Transfers of `batch` blocks of `size` bytes, one after the other."""

    op: str
    size: int
    batch: int

    @property
    def by_latency(self):
        """Whether one transfer is so small that its time is compared instead of a rate."""
        return self.size * self.batch <= 4 * KIB

    def __str__(self):
        unit, name = (MIB, "MiB") if self.size >= MIB else (KIB, "KiB")
        return f"{self.op} {self.batch} x {self.size // unit} {name}"


ROWS = [Row(op, size, batch) for size, batch in CASES for op in OPERATIONS]


@dataclass(frozen=True)
class Sample:
    """What a driver answers: gigabytes (10^9) a second, microseconds a transfer, seconds of processor time a GiB."""

    gbps: float
    p50_us: float
    p99_us: float
    cpu_initiator: float
    cpu_target: float
