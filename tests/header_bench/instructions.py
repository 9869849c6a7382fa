#!/usr/bin/env python3
"""instructions.py BUILD: fails if writes through flagcx_p2p.h take more instructions than docs/design.md allows.

Runs header_bench of the folder BUILD under callgrind, on the stand-in NIC there. Counted is what all threads carry out from the begin of
countedWrites to its end, without the stand-in's own instructions.
"""

import os
import re
import subprocess
import sys
import tempfile

# The least of so many runs counts: what threads do while they wait for each other comes on top, and differs.
RUNS = 3
# The goals with the stand-in of their day are 1,300 and 305; 397 and 199 were its own.
# Under callgrind a program is so slow that the engine looks at the clock at the begin and the end of each write: 150 more.
WRITE, PIECE = 1300 - 397 + 150, 305 - 199
# With two NICs the rate is to be 0.95 of that with one.
RAILS = 1 / 0.95


def costs(path):
    """Instructions of each object in a file of callgrind's."""
    names, costs, shown = {}, {}, None
    lines = iter(open(path))
    for line in lines:
        if named := re.match(r"c?ob=\((\d+)\)(?: (.*))?$", line):
            number, name = named.groups()
            if name:
                names[number] = os.path.basename(name)
            if not line.startswith("c"):
                shown = names[number]
        elif line.startswith("calls="):
            next(lines)  # what the called function took, which is counted there
        elif cost := re.match(r"[+\-*\d]\S* (\d+)$", line):
            costs[shown] = costs.get(shown, 0) + int(cost[1])
    return costs


def count(build, iovs, calls, rails, rounds):
    """Instructions of an iov: the library's and the stand-in's."""
    environment = dict(os.environ, LD_LIBRARY_PATH=f"{build}/lib", FLAGCX_P2P_FABRIC="verbs", FLAGCX_P2P_BIND="127.0.0.1",
                       FLAGCX_P2P_RAILS=str(rails), NULLVERBS_COPY="0", NULLVERBS_DEVS=str(rails),
                       # As slow as it is, a rail would seem silent, and, unless its port is slow too, too late to be used.
                       FLAGCX_P2P_RAIL_SILENCE_MS="60000", NULLVERBS_NARROW_PORTS="3")
    with tempfile.TemporaryDirectory() as folder:
        # Of its threads Valgrind runs one at a time. Without turns, the one that waits for writes keeps that which adds rails from running.
        command = ["valgrind", "-q", "--fair-sched=yes", "--tool=callgrind", f"--callgrind-out-file={folder}/out",
                   "--dump-before=countedWrites", "--dump-after=countedWrites",
                   f"{build}/header_bench", "count", *map(str, (iovs, calls, 4096, 64, rails, rounds))]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: {done.stdout}")
        # Two files for each time that countedWrites was called, the second one of what it did, and one of the rest.
        of = costs(f"{folder}/out.{len(os.listdir(folder)) - 1}")
    moved = iovs * calls * rounds
    nic = of.pop("libibverbs.so.1")
    return sum(of.values()) / moved, nic / moved


def least(build, *load):
    """The least of the runs, each of which is printed."""
    runs = [count(build, *load) for _ in range(RUNS)]
    print("{} x {}, rails {}:".format(*load), ", ".join(f"{own:.1f} and {nic:.1f} in the NIC" for own, nic in runs))
    return min(runs)


def main():
    build = sys.argv[1]
    write, _ = least(build, 1, 8, 1, 4000)
    one, of_nic = least(build, 4096, 8, 1, 12)
    two, of_two = least(build, 4096, 8, 2, 12)
    rows = [("a single write", write, WRITE), ("a piece of 4096 x 8", one, PIECE),
            ("the same over two rails, of one, the NIC's with it", (two + of_two) / (one + of_nic), RAILS)]
    for name, value, bound in rows:
        print(f"{name}: {value:.4g}, at most {bound:.4g}{'' if value <= bound else ': TOO MANY'}")
    sys.exit(any(value > bound for _, value, bound in rows))


if __name__ == "__main__":
    main()
