"""What the drivers in Python share: the pool, the plan and the check of libmeasure.so, and the initiator's loop.

serve.c has this loop for the drivers in C.
"""

import ctypes
import gc
import json
import os
import sys
import time

# What libraries print to stdout goes where their other messages go, and not between the answers. Done before a driver
# imports the library that it measures.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

POOL_BYTES = 64 << 20
INITIATOR, TARGET = 0, 1  # enum side of measure.h
# As in serve.c: the loop runs for so long before it is measured, or for so many transfers.
WARM_SECONDS, WARM_TRANSFERS = 0.01, 20


class Load(ctypes.Structure):
    """struct load of measure.h."""

    _fields_ = [("put", ctypes.c_int), ("size", ctypes.c_size_t), ("batch", ctypes.c_size_t),
                ("sets", ctypes.c_size_t), ("seconds", ctypes.c_double), ("seed", ctypes.c_uint64)]


class Plan(ctypes.Structure):
    """struct plan of measure.h."""

    _fields_ = [("load", Load), ("local", ctypes.c_void_p), ("peer", ctypes.c_int), ("remote", ctypes.c_uint64),
                ("local_offsets", ctypes.POINTER(ctypes.c_uint64)),
                ("remote_offsets", ctypes.POINTER(ctypes.c_uint64))]

    def sets(self):
        """For each set the local addresses and the remote addresses of its blocks."""
        batch = self.load.batch
        for first in range(0, self.load.sets * batch, batch):
            yield ([self.local + offset for offset in self.local_offsets[first:first + batch]],
                   [self.remote + offset for offset in self.remote_offsets[first:first + batch]])


def library(name):
    """libmeasure.so of the folder that holds the built drivers, for the driver of this name."""
    measure = ctypes.CDLL(os.path.join(os.environ["PEER_BENCH_BUILD"], "libmeasure.so"))
    measure.measure_pool.restype = ctypes.c_void_p
    measure.measure_pool.argtypes = [ctypes.c_int]
    measure.measure_plan.argtypes = [ctypes.POINTER(Plan), ctypes.POINTER(Load), ctypes.c_void_p, ctypes.c_int,
                                     ctypes.c_uint64]
    measure.measure_plan_free.argtypes = measure.measure_stamp.argtypes = [ctypes.POINTER(Plan)]
    measure.measure_verify.argtypes = [ctypes.POINTER(Plan), ctypes.c_uint64]
    measure.measure_cpu.restype = ctypes.c_double
    measure.measure_begin(name.encode())
    return measure


def send_line(line):
    print(line, file=ANSWERS, flush=True)


def fail(reason):
    """Ends the driver. Without the clean-up of the libraries, which may wait for a peer."""
    print(reason, file=sys.stderr, flush=True)
    os._exit(1)


def serve(measure, local, peer, remote, prepare):
    """Answers the lines of stdin until it ends.

    prepare(plan) answers a list of functions, one for each set; each moves its set and waits until it has arrived.
    """
    gc.disable()
    for line in sys.stdin:
        operation, size, batch, sets, seconds, seed = line.split()
        load = Load(operation == "put", int(size), int(batch), int(sets), float(seconds), int(seed))
        plan = Plan()
        measure.measure_plan(plan, load, local, peer, remote)
        transfers = prepare(plan)
        begin = time.perf_counter()
        for number in range(WARM_TRANSFERS):
            transfers[number % load.sets]()
            if time.perf_counter() - begin >= WARM_SECONDS:
                break
        measure.measure_stamp(plan)
        send_line(json.dumps(run(measure, plan, transfers, peer)))
        measure.measure_plan_free(plan)
        del transfers
        gc.collect()


def run(measure, plan, transfers, peer):
    """Runs the transfers in turn for the plan's seconds and checks the bytes of the last ones."""
    load, latencies, clock = plan.load, [], time.perf_counter
    seconds, number = load.seconds, 0
    cpu_target, cpu_initiator = measure.measure_cpu(peer), measure.measure_cpu(os.getpid())
    begin = before = clock()
    while True:
        transfers[number % load.sets]()
        now = clock()
        latencies.append(now - before)
        before = now
        number += 1
        if now - begin >= seconds:
            break
    cpu_initiator = measure.measure_cpu(os.getpid()) - cpu_initiator
    cpu_target = measure.measure_cpu(peer) - cpu_target
    measure.measure_verify(plan, number)
    moved = number * load.batch * load.size
    latencies.sort()
    return {"gbps": moved / (now - begin) / 1e9, "p50_us": latencies[number // 2] * 1e6,
            "p99_us": latencies[number * 99 // 100] * 1e6, "cpu_initiator": cpu_initiator / (moved / 2**30),
            "cpu_target": cpu_target / (moved / 2**30)}
