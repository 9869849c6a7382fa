"""Measures every row of every system in turn, round by round."""

import os
import sys
import time
from dataclasses import dataclass

from burners import Burners
from files import FileCopy
from pair import Failed, Pair
from rows import ROWS, USUAL
from systems import FILE, reason_against

POOL_BYTES = 64 << 20  # as in drivers/measure.h
# A sample under burners takes three times as long: the scheduler's time slices are milliseconds.
BURNING_FACTOR = 3


@dataclass(frozen=True)
class Effort:
    """How much is measured, and how long it may take."""

    rounds: int
    seconds: float  # of a sample
    patience: float  # seconds to wait for a quiet machine, in all
    limit: float  # seconds after which the rounds that follow the first one end
    rows: tuple = tuple(ROWS)


FULL, QUICK = Effort(5, 0.3, 600, 3600), Effort(3, 0.02, 20, 170)
SMOKE = Effort(1, 0.002, 0, 60, rows=tuple(USUAL[::5]))


class Rounds:
    """Measures into `results`. `quiet` waits for a quiet machine."""

    def __init__(self, build, results, quiet, effort):
        self.build, self.results, self.quiet, self.effort = build, results, quiet, effort
        self.pairs, self.pools, self.burners = {}, make_pools(), Burners()

    def run(self):
        """Answers how many rounds were begun."""
        begun, end = 0, time.monotonic() + self.effort.limit
        try:
            for system in self.results.systems:
                self.start(system)
            while begun < self.effort.rounds and (begun == 0 or time.monotonic() < end):
                self.one_round(begun, end)
                begun += 1
        finally:
            show_progress("")
            self.burners.close()
            for pair in self.pairs.values():
                pair.close()
        return begun

    def start(self, system):
        """Starts both processes, if that system is there."""
        if not any(row.is_for(system) for row in self.effort.rows):
            return
        name, reason = f"{system.name}, {system.path}", reason_against(system)
        if reason is None:
            show_progress(f"start {name}")
            try:
                pair = (FileCopy if system.path == FILE else Pair)(system, self.build, self.pools)
            except (Failed, OSError) as error:
                reason = str(error)
        if reason is not None:
            self.pairs.pop(system, None)
            self.results.not_measured[name] = reason
            return
        self.pairs[system] = pair
        if pair.version:
            self.results.versions[system.name.removesuffix("-no-thread").removesuffix("-rust")] = pair.version

    def one_round(self, number, end):
        """One sample of every row by every system, row by row, so that all systems run in one state of the machine."""
        for system in [system for system in self.pairs if system.has_own_memory and number > 0]:
            self.pairs[system].close()
            self.start(system)
        for row_number, row in enumerate(self.effort.rows):
            show_progress(f"round {number + 1}, {row}")
            # Each round begins with another system, so that the order of the systems varies.
            for system in rotated([system for system in self.pairs if row.is_for(system)], number):
                if number > 0 and time.monotonic() >= end:
                    return
                try:
                    sample = self.quiet.take(lambda: self.sample(system, row, 1 + number * len(ROWS) + row_number))
                    self.results.add(system, row, sample)
                except Failed as error:
                    self.pairs.pop(system).close()
                    self.results.not_measured[f"{system.name}, {system.path}"] = (
                        f"from {row} in round {number + 1}: {error}")

    def sample(self, system, row, seed):
        seconds = self.effort.seconds * (BURNING_FACTOR if row.burners else 1)
        with self.burners.running(row.burners):
            return self.pairs[system].sample(row, seconds, seed)


def make_pools():
    """Memory for both sides, which every pair maps that has no memory of its own.

    With separate memory a pair is up to 37% faster or slower than another one of that system.
    """
    pools = [os.memfd_create(side) for side in ["initiator", "target"]]
    for pool in pools:
        os.truncate(pool, POOL_BYTES)
    return pools


def rotated(values, by):
    by %= max(1, len(values))
    return values[by:] + values[:by]


def show_progress(text):
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
