#!/usr/bin/env python3
"""Measures this engine, its peers and the machine's limits in turn, and prints one table.

Two processes on 127.0.0.1 for each system, 64 MiB of memory a side, transfers one after the other over distinct random
blocks, every system in turn for each row. All bytes of the last transfers are compared after the clock has stopped.
"""

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import dataclass

import host
import table
from pair import Failed, Pair
from quiet import Quiet
from results import Results, to_json
from rows import ROWS
from systems import OURS, all_systems, reason_against

POOL_BYTES = 64 << 20  # as in drivers/measure.h
SKIPPED = 77  # SKIP_RETURN_CODE in ../peer_bench.cmake


@dataclass(frozen=True)
class Effort:
    """How much is measured, and how long it may take."""

    rounds: int
    seconds: float  # of a sample
    patience: float  # seconds to wait for a quiet machine, in all
    limit: float  # seconds after which the rounds that follow the first one end
    rows: tuple = tuple(ROWS)


FULL, QUICK = Effort(5, 0.3, 600, 3600), Effort(3, 0.05, 40, 150)
SMOKE = Effort(1, 0.002, 0, 60, rows=tuple(ROWS[::5]))


def main():
    options = parse(sys.argv[1:])
    if options.check:
        return
    if reason := host.reason_against_checks():
        print("not run: a process may not read another one's memory here, which the check of the bytes needs: "
              f"{reason}. Run as root, or set kernel.yama.ptrace_scope to 0")
        sys.exit(SKIPPED)
    # Ends the drivers then too: an exception runs the clean-up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options.build = os.path.abspath(options.build)
    results = Results(list(all_systems(options.build)))
    before, began = host.load(), time.monotonic()
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    effort = SMOKE if options.smoke else QUICK if options.quick else FULL
    quiet = Quiet(effort.patience)
    rounds = measure(options, effort, results, quiet)
    machine = dict(host.describe(), load_before=before, load_after=host.load())
    done = f"{rounds} rounds of {effort.seconds:g} s a sample, {time.monotonic() - began:.0f} s; {quiet}"
    report(options, results, machine, date, done)
    if not any(name == OURS for name, _, _ in results.samples):
        sys.exit(f"peer_bench: nothing of this engine was measured: {results.not_measured}")
    if options.smoke and results.not_measured:
        sys.exit(f"peer_bench: not all that the smoke run measures was measured: {results.not_measured}")


def parse(arguments):
    parser = argparse.ArgumentParser(prog="./x bench peers", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="under three minutes: shorter samples, fewer rounds")
    parser.add_argument("--json", metavar="FILE", help="write the results to FILE as well")
    parser.add_argument("--build", default="target/peers", help=argparse.SUPPRESS)  # where the drivers are
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)  # look at the arguments only
    parser.add_argument("--smoke", action="store_true", help=argparse.SUPPRESS)  # a test: ours and the limits, a second
    options = parser.parse_args(arguments)
    if options.json:
        folder = os.path.dirname(options.json) or "."
        if os.path.isdir(options.json) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
            parser.error(f"cannot write to {options.json}. Name a file in a folder that exists and is yours")
    return options


def measure(options, effort, results, quiet):
    """Fills the results; answers how many rounds were begun."""
    pairs, end, rounds = {}, time.monotonic() + effort.limit, 0
    try:
        start(options, results, pairs, make_pools())
        while rounds < effort.rounds and time.monotonic() < end:
            one_round(results, pairs, quiet, effort, rounds, end)
            rounds += 1
    finally:
        for pair in pairs.values():
            pair.close()
    return rounds


def make_pools():
    """Memory for both sides, which every pair maps.

    With separate memory a pair is up to 37% faster or slower than another one of that system.
    """
    pools = [os.memfd_create(side) for side in ["initiator", "target"]]
    for pool in pools:
        os.truncate(pool, POOL_BYTES)
    return pools


def start(options, results, pairs, pools):
    """Starts both processes of every system that there is."""
    if options.smoke:
        peers = {system.name: None for system in results.systems if not system.is_limit and system.name != OURS}
        print(f"not run: {', '.join(peers)}: ./x bench peers measures them")
        results.systems = [system for system in results.systems if system.name not in peers]
    for system in results.systems:
        name = f"{system.name}, {system.path}"
        reason = reason_against(system)
        try:
            if reason is None:
                pairs[system] = Pair(system, options.build, pools)
                if pairs[system].version:
                    results.versions[system.name.removesuffix("-no-thread")] = pairs[system].version
        except (Failed, OSError) as error:
            reason = str(error)
        if reason is not None:
            results.not_measured[name] = reason


def one_round(results, pairs, quiet, effort, number, end):
    """One sample of every row by every system, row by row, so that all systems run in one state of the machine."""
    for row_number, row in enumerate(effort.rows):
        show_progress(f"round {number + 1}, {row}")
        # Each round begins with another system, so that the order of the systems varies.
        for system in rotated(list(pairs), number):
            if number > 0 and time.monotonic() >= end:
                show_progress("")
                return
            pair, seed = pairs[system], 1 + number * len(ROWS) + row_number
            try:
                results.add(system, row, quiet.take(lambda: pair.sample(row, effort.seconds, seed)))
            except Failed as error:
                pairs.pop(system)
                results.not_measured[f"{system.name}, {system.path}"] = f"from {row} in round {number + 1}: {error}"
    show_progress("")


def rotated(values, by):
    by %= max(1, len(values))
    return values[by:] + values[:by]


def show_progress(text):
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def report(options, results, machine, date, done):
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    print(f"{date}; {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
          f"kernel {machine['kernel']}; load {machine['load_before']} before, {machine['load_after']} after; {done}")
    print(f"{versions}\n\n{table.render(results)}")
    for name, reason in results.not_measured.items():
        print(f"\nnot measured: {name}: {reason}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(to_json(results, machine, date), file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
