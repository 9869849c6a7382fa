"""What all engines of this benchmark share: the measurements, and the two processes' conversation.

A process is `python ENGINE.py target` or `python ENGINE.py initiator LINE`: the target prints one line, which the initiator
gets. Each line of the initiator's input asks for one sample, and is answered by one line of JSON.
"""

import json
import os
import sys
import time

import numpy
from content import BLOCK, POOL, Content

BLOCKS = 4096

# What libraries print goes to stderr, and not between the answers.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


class Initiator:
    """An engine that is connected to its target. Addresses are numbers; columns are numpy arrays of uint64."""

    local: int
    remote: int
    version: str
    #: From `content.new_memory`, at the address `local`.
    memory: numpy.ndarray

    def write(self, local, remote, size):
        """Writes one range; the bytes are there when it returns."""
        raise NotImplementedError

    def read(self, local, remote, size):
        """Reads one range; the bytes are here when it returns."""
        raise NotImplementedError

    def submit(self, local, remote, size):
        """Starts a transfer of many ranges of equal size, from columns of addresses; answers what `wait` takes."""
        raise NotImplementedError

    def wait(self, transfer):
        raise NotImplementedError


def say(line):
    print(line, file=ANSWERS, flush=True)


def serve(line):
    """The target: its memory lies there until the process is ended."""
    say(line)
    sys.stdin.read()
    os._exit(0)


def answer(initiator, kinds):
    """Answers samples until the input ends."""
    say(initiator.version)
    content = Content(initiator.memory)
    for _ in sys.stdin:
        say(json.dumps(sample(initiator, content, kinds)))
    # Without the library's clean-up: the target may have been ended by now.
    os._exit(0)


def sample(initiator, content, kinds):
    """The figures of all kinds, and of which of them the bytes came. They are read back after each kind, before the next one."""

    def read(offset, size):
        initiator.read(initiator.local + POOL, initiator.remote + offset, size)

    figures, verified = {}, {}
    for kind in kinds:
        content.renew()
        figures |= kind(initiator, content)
        verified[kind.__name__] = content.is_there(read)
    return figures | {"verified": verified}


def one_write(initiator, content):
    """The median time of a write of 4 KiB, each to a place of its own."""
    write, local, remote, times = initiator.write, initiator.local, initiator.remote, []
    for number in range(2200):
        block = number * 37 % (POOL // BLOCK)
        here, there = local + block * BLOCK, remote + (block ^ 1) * BLOCK
        begin = time.perf_counter()
        write(here, there, BLOCK)
        times.append(time.perf_counter() - begin)
    blocks = numpy.arange(2200) * 37 % (POOL // BLOCK)
    content.written(blocks, blocks ^ 1)
    times = sorted(times[200:])
    return {"write_us": times[len(times) // 2] * 1e6}


def scattered(initiator, content):
    """4,096 scattered blocks of 4 KiB, which the caller has as columns of addresses: until submitted, and until there."""
    submitted, arrived, random = [], [], numpy.random.default_rng(7)
    for _ in range(12):
        here = random.permutation(POOL // BLOCK)[:BLOCKS].astype(numpy.uint64)
        there = random.permutation(POOL // BLOCK)[:BLOCKS].astype(numpy.uint64)
        local = here * numpy.uint64(BLOCK) + numpy.uint64(initiator.local)
        remote = there * numpy.uint64(BLOCK) + numpy.uint64(initiator.remote)
        begin = time.perf_counter()
        transfer = initiator.submit(local, remote, BLOCK)
        submitted.append(time.perf_counter() - begin)
        initiator.wait(transfer)
        arrived.append(time.perf_counter() - begin)
        content.written(here, there)
    middle = len(submitted) // 2
    return {"submit_ms": sorted(submitted[2:])[middle - 1] * 1e3, "scattered_ms": sorted(arrived[2:])[middle - 1] * 1e3}


def large(initiator, content):
    """The rate of one write of the whole pool."""
    rates = []
    for _ in range(3):
        begin = time.perf_counter()
        initiator.write(initiator.local, initiator.remote, POOL)
        rates.append(POOL / (time.perf_counter() - begin) / 1e9)
    blocks = numpy.arange(POOL // BLOCK)
    content.written(blocks, blocks)
    return {"gib_gbps": max(rates)}


#: What is measured between two processes.
KINDS = (one_write, scattered, large)
