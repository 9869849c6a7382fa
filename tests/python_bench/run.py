#!/usr/bin/env python3
"""Measures this engine from Python beside NIXL and Mooncake from the Python registry, and beside its own C++ interface.

Two processes on 127.0.0.1 for each engine and path, 1 GiB of memory a side, engines in turn in every round, medians. All bytes
are read back and compared after each kind of measurement. Then what one call costs with both ends in one process. The status is not
0 if bytes were wrong, or if this engine failed.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import sys
from dataclasses import dataclass, field

from driver import Driver, Failed
from table import print_alone, print_table

HERE = pathlib.Path(__file__).resolve().parent
ROUNDS = 3
# A sample takes some seconds; a driver that has not answered by then hangs.
ANSWER_SECONDS = 120
SMOKE_POOL_MIB = 64
NOT_INSTALLED = "not installed"
#: The names of this engine.
OURS = ("C++", "Python")


@dataclass
class Engine:
    """An engine on one path, with the command that its roles are added to."""

    name: str
    path: str
    command: list
    arguments: list = field(default_factory=list)
    environment: dict = field(default_factory=dict)
    needs: pathlib.Path = HERE
    #: What it was set to that its users have to set too.
    note: str = ""


def ours(python, cpp=None):
    """This engine, from Python and, if there is that driver, from C++."""
    for path in ["shared", "cross-memory", "tcp"]:
        settings = {"FLAGCX_P2P_FABRIC": "software", "FLAGCX_P2P_PATH": path, "FLAGCX_P2P_BIND": "127.0.0.1"}
        memory = ["shared"] if path == "shared" else ["private"]
        if cpp:
            yield Engine("C++", path, [cpp], memory, settings, cpp)
        yield Engine("Python", path, [python, HERE / "ours.py"], memory, settings, python)


def others(build):
    nixl = build / "nixl" / "bin" / "python"
    for path, transports in [("cross-memory", "posix,sysv,cma,tcp"), ("tcp", "tcp")]:
        yield Engine("NIXL", path, [nixl, HERE / "nixl_engine.py"], [], {"UCX_TLS": transports}, nixl)
    mooncake = build / "mooncake" / "bin" / "python"
    # Of 4,096 pieces of one batch it refuses most by default ("queue-full"), and the transfer fails. One batch with a longer queue
    # is faster than batches of 100 in turn, which it takes.
    queue = {"MC_TCP_MAX_QUEUED_TRANSFERS_PER_PEER": "8192"}
    note = "with MC_TCP_MAX_QUEUED_TRANSFERS_PER_PEER=8192: by default it refuses a batch of 4,096 pieces"
    yield Engine("Mooncake", "tcp", [mooncake, HERE / "mooncake_engine.py"], [], queue, mooncake, note)


class Pair:
    """A target, and an initiator that is connected to it."""

    def __init__(self, engine, log):
        environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", **engine.environment)
        self.drivers = []

        def start(*words):
            # The role first, because the package's driver reads it there.
            self.drivers.append(Driver([*map(str, engine.command), *words], environment, log))
            return self.drivers[-1]

        try:
            line = start("target", *engine.arguments).line(ANSWER_SECONDS)
            words = [*engine.arguments, line] if engine.name == "C++" else [line, *engine.arguments]
            self.initiator = start("initiator", *words)
            self.version = self.initiator.line(ANSWER_SECONDS)
        except Failed:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for driver in self.drivers:
            driver.close()


def measure(all_engines, logs, rounds):
    """Answers the samples of each engine, why others have none, and versions."""
    samples, missing, versions = {}, {}, {}
    for number in range(rounds):
        for engine in all_engines:
            key = (engine.path, engine.name)
            if key in missing:
                continue
            if not engine.needs.exists():
                missing[key] = NOT_INSTALLED
                continue
            try:
                # A pair at a time: all of them would need 2 GiB each.
                with log(logs, f"{engine.name}-{engine.path}") as output, Pair(engine, output) as pair:
                    sample = verified(pair.initiator.ask(ANSWER_SECONDS), f"{engine.name}, {engine.path}")
            except (OSError, Failed) as error:
                missing[key] = f"{error}; see {logs or 'above'}"
                continue
            versions[engine.name] = pair.version
            samples.setdefault(key, []).append(sample)
            print(f"round {number + 1}: {engine.name}, {engine.path}", file=sys.stderr)
    return samples, missing, versions


def log(logs, name):
    """A file for what drivers complain of, or the errors of this program if there is no folder."""
    return (logs / f"python-{name}.log").open("w") if logs else contextlib.nullcontext(sys.stderr)


def verified(line, what):
    """The figures of an answer. A measurement that did not move its bytes ends the program."""
    sample = json.loads(line)
    wrong = [kind for kind, fine in sample.pop("verified").items() if not fine]
    if wrong:
        sys.exit(f"{what}: the target has other bytes than were written after: {', '.join(wrong)}")
    return sample


def in_one_process(python, logs, rounds):
    if not python.exists():
        return None
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", FLAGCX_P2P_FABRIC="software", FLAGCX_P2P_BIND="127.0.0.1")
    with log(logs, "alone") as output, contextlib.closing(Driver([python, HERE / "ours.py", "alone"], environment, output)) as driver:
        try:
            driver.line(ANSWER_SECONDS)  # its version
            found = [verified(driver.ask(ANSWER_SECONDS), "in one process") for _ in range(rounds)]
        except Failed as error:
            sys.exit(f"in one process: {error}; see {logs or 'above'}")
    return {key: statistics.median(sample[key] for sample in found) for key in found[0]}


def main():
    parser = argparse.ArgumentParser(prog="./x bench python", description=__doc__, allow_abbrev=False)
    parser.add_argument("--build", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="samples of each engine (default %(default)s)")
    parser.add_argument("--json", type=pathlib.Path, help="write the samples to this file too")
    # A test of this program: one round with little memory, and only the package that this Python finds.
    parser.add_argument("--smoke", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.smoke:
        os.environ["PYTHON_BENCH_POOL_MIB"] = str(SMOKE_POOL_MIB)
        python = pathlib.Path(sys.executable)
        run(python, list(ours(python)), None, 1, None)
    elif options.build:
        logs = options.build / "log"
        logs.mkdir(parents=True, exist_ok=True)
        python = options.build / "wheel" / "bin" / "python"
        all_engines = [*ours(python, options.build / "cpp_api"), *others(options.build)]
        run(python, all_engines, logs, options.rounds, options.json)
    else:
        parser.error("--build FOLDER is missing: `./x bench python` has it")


def run(python, all_engines, logs, rounds, file):
    samples, missing, versions = measure(all_engines, logs, rounds)
    alone = in_one_process(python, logs, rounds)
    print_table(samples, missing, versions, rounds)
    for engine in all_engines:
        if engine.note and (engine.path, engine.name) in samples:
            print(f"{engine.name}, {engine.path}: {engine.note}")
    print_alone(alone)
    if file:
        rows = [{"path": path, "engine": name, "samples": found} for (path, name), found in samples.items()]
        file.write_text(json.dumps({"versions": versions, "rows": rows, "in_one_process": alone}, indent=1) + "\n")
    if not any(name == "Python" for _, name in samples):
        sys.exit("nothing of this engine was measured")
    failed = [f"{name}, {path}" for (path, name), reason in missing.items() if name in OURS and reason != NOT_INSTALLED]
    if failed:
        sys.exit(f"this engine failed: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
