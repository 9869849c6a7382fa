"""What this engine is to reach: each a ratio to another system, or to a limit, of the same run."""

from dataclasses import asdict, dataclass
from typing import Optional

from rows import ALL_BLOCKS, BLOCKS, BURNING, KIB, MIB, ONE_SET, OPERATIONS, WHOLE_FILE, Row
from systems import CROSS_MEMORY, FILE, OURS, OURS_RUST, SHARED, TCP

# What is compared of a sample, its unit, and whether less is better.
VALUES = {
    "rate": (lambda sample: sample.gbps, "GB/s", False),
    "p50": (lambda sample: sample.p50_us, "us", True),
    "p99": (lambda sample: sample.p99_us, "us", True),
    "cpu": (lambda sample: sample.cpu_initiator + sample.cpu_target, "s a GiB", True),
}
UCX = ("ucx", "ucx-debian")
NIXL = ("nixl", "nixl-no-thread")
PEERS = (*UCX, *NIXL, "mooncake")
PROCESS_VM = ("process_vm", "process_vm_all")


@dataclass(frozen=True)
class Bound:
    """`factor` times the best of these systems, and so many microseconds more."""

    name: str
    systems: tuple
    factor: float = 1.0
    plus: float = 0.0
    value: str = ""  # of theirs, if not the one of the aim

    def __str__(self):
        text = self.name if self.factor == 1 else f"{self.factor:g} x {self.name}"
        return f"{text} + {self.plus:g} us" if self.plus else text


@dataclass(frozen=True)
class Aim:
    """One row on one path. Of several bounds one has to be kept."""

    path: str
    row: Row
    value: str
    bounds: tuple
    system: str = OURS

    def __str__(self):
        sign = "<=" if VALUES[self.value][2] else ">="
        return f"{sign} {' or '.join(map(str, self.bounds))}"


@dataclass(frozen=True)
class Outcome:
    """An aim beside what was measured; None where one of the two was not."""

    path: str
    row: str
    system: str
    value: str
    asked: str
    ours: Optional[float] = None
    compared_with: Optional[str] = None
    theirs: Optional[float] = None
    ratio_asked: Optional[float] = None
    ratio: Optional[float] = None
    ratio_min: Optional[float] = None
    ratio_max: Optional[float] = None
    met: Optional[bool] = None

    def to_json(self):
        return asdict(self)


def evaluate(results, aims):
    """The outcome of every aim: by the medians, with the spread of the ratio over the rounds."""
    return [outcome(results, aim) for aim in aims]


def outcome(results, aim):
    row = f"{aim.row}{', Rust' if aim.system == OURS_RUST else ''}"
    base = {"path": aim.path, "row": row, "system": aim.system, "value": aim.value, "asked": str(aim)}
    read, _, less = VALUES[aim.value]
    ours = results.median(aim.system, aim.path, aim.row)
    if ours is None:
        return Outcome(**base)
    ours = read(ours)
    reached = [limit for bound in aim.bounds if (limit := best(results.median, aim, bound)) is not None]
    if not reached:
        return Outcome(**base, ours=ours)
    # The bound that is easiest to keep; the ratios are to what it is made of.
    allowed, theirs, name, value = (max if less else min)(reached)
    met = ours <= allowed if less else ours >= allowed
    ratios = [read(mine) / VALUES[value][0](other) for number in range(results.rounds)
              if (mine := results.of_round(number)(aim.system, aim.path, aim.row)) is not None
              and (other := results.of_round(number)(name, aim.path, aim.row)) is not None]
    return Outcome(**base, ours=ours, compared_with=name, theirs=theirs, ratio_asked=allowed / theirs,
                   ratio=ours / theirs, ratio_min=min(ratios, default=None), ratio_max=max(ratios, default=None),
                   met=True if met else False if len(reached) == len(aim.bounds) else None)


def best(sample_of, aim, bound):
    """What a bound allows, the value that it is made of, the name of its system, and which value; None without a sample."""
    value = bound.value or aim.value
    read, _, less = VALUES[value]
    found = [(read(sample), name) for name in bound.systems
             if (sample := sample_of(name, aim.path, aim.row)) is not None]
    if not found:
        return None
    theirs, name = min(found) if less else max(found)
    return bound.factor * theirs + bound.plus, theirs, name, value


def both(path, size, batch, value, *bounds, **options):
    """A put and a get."""
    return [Aim(path, Row(op, size, batch), value, bounds, **options) for op in OPERATIONS]


def listed():
    ucx = Bound("UCX", UCX)
    for row in BLOCKS:
        yield Aim(SHARED, row, "p50", {ONE_SET: (Bound("UCX", UCX, factor=1.8),),
                                       ALL_BLOCKS: (Bound("memcpy", ("memcpy",), plus=0.25),)}[row.sets])
    for size, batch in [(64 * KIB, 64), (MIB, 1), (16 * MIB, 1)]:
        yield from both(SHARED, size, batch, "rate", Bound("UCX and memcpy", (*UCX, "memcpy"), factor=0.95))

    yield from both(CROSS_MEMORY, 4 * KIB, 1, "p50", ucx, Bound("process_vm", PROCESS_VM, plus=0.3))
    for size, batch, factor in [(64 * KIB, 1, 1), (MIB, 1, 1), (4 * KIB, 64, 4), (4 * KIB, 1024, 1.8),
                                (64 * KIB, 64, 1.05), (64 * KIB, 1024, 1.3), (MIB, 32, 1.25)]:
        yield from both(CROSS_MEMORY, size, batch, "rate", Bound("UCX", UCX, factor=factor))

    yield from both(TCP, 4 * KIB, 1, "p50", Bound("UCX", UCX, factor=0.85))
    for name, systems, size, batch, put, get in [
            ("UCX", UCX, 4 * KIB, 64, 5, 4), ("UCX", UCX, 4 * KIB, 1024, 5, 4),
            ("the best peer", PEERS, 64 * KIB, 1, 1, 1), ("the best peer", PEERS, MIB, 1, 1, 1),
            ("the best peer", PEERS, 16 * MIB, 1, 1, 1), ("the best peer", PEERS, 64 * KIB, 64, 1.5, 2.4),
            ("the best peer", PEERS, 64 * KIB, 1024, 1.5, 2.4), ("the best peer", PEERS, MIB, 32, 1.1, 2.9)]:
        for op, factor in [("put", put), ("get", get)]:
            yield Aim(TCP, Row(op, size, batch), "rate", (Bound(name, systems, factor=factor),))
    yield from both(TCP, MIB, 32, "cpu", Bound("UCX", UCX, factor=0.85))

    for path in [CROSS_MEMORY, TCP, SHARED]:
        for row in BURNING:
            yield Aim(path, row, "p99", (Bound("its p50", (OURS,), factor=10, value="p50"),))
    yield Aim(FILE, WHOLE_FILE, "rate", (Bound("cp", ("cp",), factor=0.5),))
    # On this path nothing but the call takes time: no thread and no peer has to wake up.
    yield from both(CROSS_MEMORY, 4 * KIB, 1, "p50", Bound("C++ header", (OURS,), plus=1.0), system=OURS_RUST)


AIMS = list(listed())
