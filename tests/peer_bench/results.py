"""Samples, their medians, and the JSON that is made of them."""

import statistics
from dataclasses import asdict, fields

from rows import ROWS, Sample
from systems import OURS


class Results:
    """The samples of every system and row, and the reasons of missing ones."""

    def __init__(self, systems):
        self.systems = systems
        self.samples = {}
        self.versions = {}
        self.not_measured = {}

    def add(self, system, row, sample):
        self.samples.setdefault((system.name, system.path, row), []).append(sample)

    def median(self, name, path, row):
        """The median of each value, or None without samples."""
        samples = self.samples.get((name, path, row))
        if not samples:
            return None
        return Sample(**{field.name: statistics.median(getattr(sample, field.name) for sample in samples)
                         for field in fields(Sample)})

    def spread(self, name, path, row):
        """The least and the greatest rate."""
        rates = [sample.gbps for sample in self.samples[name, path, row]]
        return min(rates), max(rates)

    def names(self, path, limits):
        """The limits, or the other systems, that have a sample on a path."""
        measured = {(name, where) for name, where, _ in self.samples}
        return [system.name for system in self.systems
                if system.path == path and system.is_limit == limits and not system.is_for_calls
                and (system.name, path) in measured]

    def of_round(self, number):
        """Answers the samples of one round, as median() does those of all; None where there are not so many."""
        def sample(name, path, row):
            samples = self.samples.get((name, path, row), [])
            return samples[number] if number < len(samples) else None
        return sample

    @property
    def rounds(self):
        return max(map(len, self.samples.values()), default=0)

    def best(self, names, path, row):
        """The fastest of these systems as a pair of name and sample, or None."""
        found = [(name, self.median(name, path, row)) for name in names]
        found = [(name, sample) for name, sample in found if sample is not None]
        return max(found, key=lambda entry: speed(entry[1], row), default=None)

    def best_peer(self, path, row):
        return self.best([name for name in self.names(path, limits=False) if name != OURS], path, row)

    def best_limit(self, path, row):
        return self.best(self.names(path, limits=True), path, row)

    def comparisons(self, path, row):
        """Our speed as a multiple of the best peer's and of the best limit's; None where one of the two is missing."""
        ours = self.median(OURS, path, row)
        return [None if ours is None or other is None else speed(ours, row) / speed(other[1], row)
                for other in (self.best_peer(path, row), self.best_limit(path, row))]


def speed(sample, row):
    """What is compared: the p99 under burners, transfers a second by their median where one is small, else the rate."""
    if row.burners:
        return 1 / sample.p99_us
    return 1 / sample.p50_us if row.by_latency else sample.gbps


def to_json(results, outcomes, host, date):
    """Rates in 10^9 bytes a second, processor time in seconds a GiB."""
    return {"host": host, "date": date, "rows": entries(results, limits=False), "limits": entries(results, limits=True),
            "aims": [outcome.to_json() for outcome in outcomes], "versions": results.versions,
            "not_measured": results.not_measured}


def entries(results, limits):
    made = []
    for system in results.systems:
        for row in ROWS:
            sample = results.median(system.name, system.path, row)
            if system.is_limit != limits or sample is None:
                continue
            low, high = results.spread(system.name, system.path, row)
            made.append({"system": system.name, "path": system.path, "op": row.op, "size": row.size,
                         "batch": row.batch, **asdict(sample), "sets": row.sets, "burners": row.burners,
                         "gbps_min": low, "gbps_max": high, "samples": len(results.samples[system.name, system.path, row])})
    return made
