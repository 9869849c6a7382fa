#!/usr/bin/env python3
"""compare.py BUILD [--rounds N]: the table of docs/benchmarks.md.

Runs header_bench and raw_bench of the folder BUILD in turn on the stand-in NIC there, so many rounds, and prints for
each row the median of the ratios with the least and the greatest.
"""

import argparse
import os
import statistics
import subprocess
import sys

# Name; header_bench's arguments; the stand-in's settings; bytes of one of raw_bench's requests.
STILL, COPYING, DELAYED = {"NULLVERBS_COPY": "0"}, {}, {"NULLVERBS_COPY": "0", "NULLVERBS_DELAY_NS": "2000"}
LOADS = {load.replace(" ", " x "): f"rate {load} 4096 64" for load in ["4096 8", "1024 1", "64 1", "1 8", "1 1"]} | {
    "4096 x 8, iovs that touch": "rate 4096 8 4096 0",
    "synchronous, 64 x 1 thread": "sync 64 1 4096 0",
    "synchronous, 64 x 4 threads": "sync 64 4 4096 0",
}
ROWS = (
    [(name, load, STILL, 4096) for name, load in LOADS.items()]
    + [
        ("copies, 4096 of 64 KiB x 1", "rate 4096 1 65536 0", COPYING, 65536),
        ("copies, 256 of 1 MiB x 1", "rate 256 1 1048576 0", COPYING, 1048576),
    ]
    + [(f"{name}, 2 us later", load, DELAYED, 4096) for name, load in LOADS.items()]
)


def run(build, program, arguments, settings):
    """What the program prints, as numbers."""
    environment = dict(os.environ, LD_LIBRARY_PATH=f"{build}/lib", FLAGCX_P2P_FABRIC="verbs",
                       FLAGCX_P2P_BIND="127.0.0.1", **settings)
    done = subprocess.run([f"{build}/{program}", *arguments.split()], env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=120)
    if done.returncode != 0:
        sys.exit(f"{program} {arguments}: {done.stderr}")
    return done.stdout


def raw(build, size, settings):
    """raw_bench: million requests per second, nanoseconds of CPU time per request."""
    words = run(build, "raw_bench", f"{size} 0.5", settings).replace("=", " ").split()
    return float(words[words.index("Mrequests/s") - 1]), float(words[words.index("cpu_ns_per_request") + 1])


def spread(values, digits=2):
    """The median, the least and the greatest."""
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rates, ratios, costs = ({row[0]: [] for row in ROWS} for _ in range(3))
    latencies = []
    for _ in range(options.rounds):
        for name, arguments, settings, size in ROWS:
            ceiling, raw_cost = raw(options.build, size, settings)
            rate, cost = map(float, run(options.build, "header_bench", arguments, settings).split())
            rates[name].append(rate)
            ratios[name].append(rate / ceiling)
            costs[name].append(cost / raw_cost)
        words = run(options.build, "header_bench", "latency", STILL) + run(options.build, "raw_bench", "pause", STILL)
        words += run(options.build, "header_bench", "latency", DELAYED)
        latencies.append([float(word) for word in words.split()])

    print("| iovs of 4 KiB per call x calls in flight | million/s | of raw's rate | CPU time, of raw's |")
    print("|---|---|---|---|")
    for name in rates:
        rate = statistics.median(rates[name])
        print(f"| {name} | {rate:.4g} | {spread(ratios[name])} | {spread(costs[name])} |")
    for late in ["", ", 2 us later"]:
        one, four = (rates[f"synchronous, 64 x {threads}{late}"] for threads in ["1 thread", "4 threads"])
        print(f"\nFour threads against one{late}: {spread([b / a for a, b in zip(one, four)])} times.")
    print("\n| one write of 4 KiB | |\n|---|---|")
    titles = ["p50, us", "p99, us", "300 ms after the last one, p50, us", "idle, cores",
              "without an engine, after 300 ms, p50, us",
              "2 us later: p50, us", "2 us later: p99, us", "2 us later: 300 ms after the last one, p50, us",
              "2 us later: idle, cores"]
    for title, values in zip(titles, zip(*latencies)):
        print(f"| {title} | {spread(values, 3)} |")


if __name__ == "__main__":
    main()
