#!/usr/bin/env python3
"""Measures this engine, its peers and the machine's limits in turn, and prints the tables of docs/benchmarks.md.

Two processes on 127.0.0.1 for each system, 64 MiB of memory a side, transfers one after the other over distinct random
blocks, every system in turn for each row. All bytes of the last transfers are compared after the clock has stopped.
Rows that miss their aim are listed; the exit status is 0 nevertheless: this is a measurement.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time

import aims
import docs_page
import host
import table
from quiet import Quiet
from results import Results, to_json
from rounds import FULL, QUICK, SMOKE, Rounds
from systems import OURS, PATHS, all_systems

SKIPPED = 77  # SKIP_RETURN_CODE in ../peer_bench.cmake
HERE = os.path.dirname(os.path.abspath(__file__))


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
    results = Results(chosen_systems(options))
    before, began = host.load(), time.monotonic()
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    effort = SMOKE if options.smoke else QUICK if options.quick else FULL
    quiet = Quiet(effort.patience)
    rounds = Rounds(options.build, results, quiet, effort).run()
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
    parser.add_argument("--path", choices=PATHS, help="measure one path only")
    parser.add_argument("--json", metavar="FILE", help="write the results to FILE as well")
    parser.add_argument("--plot", metavar="FILE", help="write the plot to FILE.svg as well")
    parser.add_argument("--docs", metavar="FILE", help="replace the comparison in the page FILE, and the plot beside it")
    parser.add_argument("--build", default="target/peers", help=argparse.SUPPRESS)  # where the drivers are
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)  # look at the arguments only
    parser.add_argument("--smoke", action="store_true", help=argparse.SUPPRESS)  # a test: ours and the limits, a second
    options = parser.parse_args(arguments)
    for file in filter(None, [options.json, options.plot, options.docs]):
        folder = os.path.dirname(file) or "."
        if os.path.isdir(file) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
            parser.error(f"cannot write to {file}. Name a file in a folder that exists and is yours")
    if options.docs and (reason := docs_page.reason_against(options.docs)):
        parser.error(reason)
    return options


def chosen_systems(options):
    """Those of the path that was asked for. The smoke run leaves out what has to be installed or is not there yet."""
    systems = [system for system in all_systems(options.build) if options.path in [None, system.path]]
    if options.quick:
        systems = [system for system in systems if not system.is_slow]
    if not options.smoke:
        return systems
    smoke = [system for system in systems if system.is_limit or
             (system.name == OURS and not (system.advice and not os.path.exists(system.needs)))]
    left_out = dict.fromkeys(f"{system.name} ({system.path})" for system in systems if system not in smoke)
    print(f"not run: {', '.join(left_out)}: ./x bench peers measures them")
    return smoke


def report(options, results, machine, date, done):
    """Prints everything as a section of docs/benchmarks.md, and writes the files."""
    outcomes = aims.evaluate(results, [aim for aim in aims.AIMS if options.path in [None, aim.path]])
    command = "./x bench peers" + " --quick" * options.quick
    text = docs_page.section(command, results, machine, date, done, table.render(results, () if options.smoke else outcomes))
    print(text)
    written = options.json or os.path.join(options.build, "peers.json")
    for file in {written, os.path.join(options.build, "peers.json")}:
        with open(file, "w", encoding="utf-8") as out:
            json.dump(to_json(results, outcomes, machine, date), out, indent=1)
            out.write("\n")
    if options.smoke:
        return
    plots = [os.path.join(options.build, "peers.svg"), options.plot, options.docs and docs_page.plot_of(options.docs)]
    if reason := plot(options.build, written, list(filter(None, plots))):
        print(f"\nno plot: {reason}")
    elif options.docs:
        docs_page.replace(options.docs, text)


def plot(build, data, files):
    """Draws the plot with the Python that has matplotlib; answers a reason if there is none."""
    own = os.path.join(build, "plot", "bin", "python")
    done = subprocess.run([own if os.path.exists(own) else sys.executable, os.path.join(HERE, "plot.py"), data, *files],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return None if done.returncode == 0 else done.stdout.strip().splitlines()[-1]


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
