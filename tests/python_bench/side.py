"""What all engines of this benchmark share: memory, the measurements, and the two processes' conversation.

A process is `python ENGINE.py target` or `python ENGINE.py initiator LINE`: the target prints one line, which the initiator
gets. Each line of the initiator's input asks for one sample, and is answered by one line of JSON.
"""

import json
import os
import sys
import time

import numpy

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
POOL = GIB
BLOCK, BLOCKS = 4 * KIB, 4096

# What libraries print goes to stderr, and not between the answers.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


class Initiator:
    """An engine that is connected to its target. Addresses are numbers; columns are numpy arrays of uint64."""

    local: int
    remote: int
    version: str

    def write(self, local, remote, size):
        """Writes one range; the bytes are there when it returns."""
        raise NotImplementedError

    def submit(self, local, remote, size):
        """Starts a transfer of many ranges of equal size, from columns of addresses; answers what `wait` takes."""
        raise NotImplementedError

    def wait(self, transfer):
        raise NotImplementedError


def new_pool(fill):
    """Memory of a side: every page of it is there."""
    return numpy.full(POOL, fill, dtype=numpy.uint8)


def say(line):
    print(line, file=ANSWERS, flush=True)


def serve(line):
    """The target: its memory lies there until the process is ended."""
    say(line)
    sys.stdin.read()
    os._exit(0)


def measure(initiator, check):
    """Answers samples until the input ends. `check(at, size)`: whether the target's bytes there are those of the pool."""
    say(initiator.version)
    for _ in sys.stdin:
        say(json.dumps({**one_write(initiator), **scattered(initiator), **large(initiator), "verified": check()}))
    # Without the library's clean-up: the target may have been ended by now.
    os._exit(0)


def one_write(initiator):
    """The median time of a write of 4 KiB, each to a place of its own."""
    write, local, remote, times = initiator.write, initiator.local, initiator.remote, []
    for number in range(2200):
        offset = number * 37 % (POOL // BLOCK) * BLOCK
        begin = time.perf_counter()
        write(local + offset, remote + offset, BLOCK)
        times.append(time.perf_counter() - begin)
    times = sorted(times[200:])
    return {"write_us": times[len(times) // 2] * 1e6}


def scattered(initiator):
    """4,096 scattered blocks of 4 KiB, which the caller has as columns of addresses: until submitted, and until there."""
    submitted, arrived, random = [], [], numpy.random.default_rng(7)
    for _ in range(12):
        here = random.permutation(POOL // BLOCK)[:BLOCKS].astype(numpy.uint64) * numpy.uint64(BLOCK)
        there = random.permutation(POOL // BLOCK)[:BLOCKS].astype(numpy.uint64) * numpy.uint64(BLOCK)
        local, remote = here + numpy.uint64(initiator.local), there + numpy.uint64(initiator.remote)
        begin = time.perf_counter()
        transfer = initiator.submit(local, remote, BLOCK)
        submitted.append(time.perf_counter() - begin)
        initiator.wait(transfer)
        arrived.append(time.perf_counter() - begin)
    middle = len(submitted) // 2
    return {"submit_ms": sorted(submitted[2:])[middle - 1] * 1e3, "scattered_ms": sorted(arrived[2:])[middle - 1] * 1e3}


def large(initiator):
    """The rate of one write of 1 GiB."""
    rates = []
    for _ in range(3):
        begin = time.perf_counter()
        initiator.write(initiator.local, initiator.remote, POOL)
        rates.append(POOL / (time.perf_counter() - begin) / 1e9)
    return {"gib_gbps": max(rates)}
