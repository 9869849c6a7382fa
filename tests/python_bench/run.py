#!/usr/bin/env python3
"""Measures this engine from Python beside NIXL and Mooncake from the Python registry, and beside its own C++ interface.

Two processes on 127.0.0.1 for each engine and path, 1 GiB of memory a side, engines in turn in every round, medians. All bytes
are read back and compared after the last sample of each round. Then what one call costs with both ends in one process.
"""

import argparse
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
from dataclasses import dataclass, field

HERE = pathlib.Path(__file__).resolve().parent
ROUNDS = 3

#: What is measured: the key of a sample, the heading, digits after the point.
COLUMNS = [
    ("write_us", "write 4 KiB, us", 1),
    ("submit_ms", "4,096 pieces submitted, ms", 2),
    ("scattered_ms", "4,096 pieces there, ms", 2),
    ("gib_gbps", "write 1 GiB, GB/s", 2),
]


@dataclass
class Engine:
    """An engine on one path, with the command that its roles are added to."""

    name: str
    path: str
    command: list
    arguments: list = field(default_factory=list)
    environment: dict = field(default_factory=dict)
    needs: pathlib.Path = HERE


def engines(build):
    ours, cpp = build / "wheel" / "bin" / "python", build / "cpp_api"
    for path in ["shared", "cross-memory", "tcp"]:
        settings = {"FLAGCX_P2P_FABRIC": "software", "FLAGCX_P2P_PATH": path, "FLAGCX_P2P_BIND": "127.0.0.1"}
        memory = ["shared"] if path == "shared" else ["private"]
        yield Engine("C++", path, [cpp], memory, settings, cpp)
        yield Engine("Python", path, [ours, HERE / "ours.py"], memory, settings, ours)
    nixl = build / "nixl" / "bin" / "python"
    for path, transports in [("cross-memory", "posix,sysv,cma,tcp"), ("tcp", "tcp")]:
        yield Engine("NIXL", path, [nixl, HERE / "nixl_engine.py"], [], {"UCX_TLS": transports}, nixl)
    mooncake = build / "mooncake" / "bin" / "python"
    yield Engine("Mooncake", "tcp", [mooncake, HERE / "mooncake_engine.py"], [], {}, mooncake)


class Pair:
    """A target, and an initiator that is connected to it; stopped while others are measured."""

    def __init__(self, engine, log):
        environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", **engine.environment)
        self.log = open(log, "w", encoding="utf-8")
        self.processes = []

        def start(*words):
            # The role first, because the package's driver reads it there.
            command = [*map(str, engine.command), *words]
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
            )
            self.processes.append(process)
            return process

        cpp = engine.name == "C++"
        target = start("target", *engine.arguments)
        line = target.stdout.readline().strip()
        words = [*engine.arguments, line] if cpp else [line, *engine.arguments]
        self.initiator = start("initiator", *words)
        self.version = self.initiator.stdout.readline().strip()
        self.pause(signal.SIGSTOP)

    def sample(self):
        self.pause(signal.SIGCONT)
        self.initiator.stdin.write("sample\n")
        self.initiator.stdin.flush()
        answer = json.loads(self.initiator.stdout.readline())
        self.pause(signal.SIGSTOP)
        return answer

    def pause(self, number):
        for process in self.processes:
            process.send_signal(number)

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.log.close()


def measure(build, rounds):
    """Answers the samples of each engine, and why others have none."""
    (build / "log").mkdir(parents=True, exist_ok=True)
    samples, missing, versions = {}, {}, {}
    for number in range(rounds):
        for engine in engines(build):
            key = (engine.path, engine.name)
            if key in missing:
                continue
            if not engine.needs.exists():
                missing[key] = "not installed"
                continue
            pair = None
            try:
                # A pair at a time: all of them would need 2 GiB each.
                pair = Pair(engine, build / "log" / f"python-{engine.name}-{engine.path}.log")
                sample = pair.sample()
            except (OSError, ValueError) as error:
                missing[key] = f"{error}; see {build}/log"
                continue
            finally:
                if pair:
                    pair.close()
            if not sample.pop("verified"):
                sys.exit(f"{engine.name}, {engine.path}: the bytes differ")
            versions[engine.name] = pair.version
            samples.setdefault(key, []).append(sample)
            print(f"round {number + 1}: {engine.name}, {engine.path}", file=sys.stderr)
    return samples, missing, versions


def in_one_process(build, rounds):
    python = build / "wheel" / "bin" / "python"
    if not python.exists():
        return None
    environment = dict(os.environ, FLAGCX_P2P_FABRIC="software", FLAGCX_P2P_BIND="127.0.0.1")
    run = subprocess.run(
        [python, HERE / "ours.py", "alone"], env=environment, input="sample\n" * rounds, capture_output=True, text=True
    )
    found = [json.loads(line) for line in run.stdout.splitlines()[1:]]
    if not found:
        sys.exit(f"in one process: {run.stderr}")
    return {key: statistics.median(sample[key] for sample in found) for key in found[0]}


def main():
    parser = argparse.ArgumentParser(prog="./x bench python", description=__doc__, allow_abbrev=False)
    parser.add_argument("--build", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="samples of each engine (default %(default)s)")
    parser.add_argument("--json", type=pathlib.Path, help="write the samples to this file too")
    options = parser.parse_args()
    samples, missing, versions = measure(options.build, options.rounds)
    alone = in_one_process(options.build, options.rounds)
    print_table(samples, missing, versions, options.rounds)
    print_alone(alone)
    if options.json:
        rows = [{"path": path, "engine": name, "samples": found} for (path, name), found in samples.items()]
        options.json.write_text(json.dumps({"versions": versions, "rows": rows, "in_one_process": alone}, indent=1) + "\n")
    if not any(name == "Python" for _, name in samples):
        sys.exit("nothing of this engine was measured")


def print_table(samples, missing, versions, rounds):
    told = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "C++")
    print(f"\nTwo processes, medians of {rounds} rounds in turn; {told}\n")
    print("| Path | Engine | " + " | ".join(heading for _, heading, _ in COLUMNS) + " |")
    print("|---|---|" + "---|" * len(COLUMNS))
    for path, name in samples:
        cells = [f"{statistics.median(sample[key] for sample in samples[path, name]):.{digits}f}" for key, _, digits in COLUMNS]
        print(f"| {path} | {name} | " + " | ".join(cells) + " |")
    for (path, name), reason in missing.items():
        print(f"not measured: {name}, {path}: {reason}")


def print_alone(alone):
    if alone is None:
        print("\nnot measured: one process: the package is not installed")
        return
    print("\nBoth ends in one process\n\n| What | |\n|---|---|")
    print(f"| write 4 KiB | {alone['write_us']:.2f} us |")
    print(f"| 4,096 scattered pieces submitted | {alone['submit_ms']:.3f} ms |")
    print(f"| `await` of a write of 64 KiB; `wait` of it; an await of asyncio alone | {alone['await_us']:.1f}; "
          f"{alone['wait_us']:.1f}; {alone['asyncio_us']:.1f} us |")


if __name__ == "__main__":
    main()
