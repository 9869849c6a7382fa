"""Replays a file of traces/: the calls that a program makes on its transfer engines, in processes of their own.

    mooncake_replay.py flagcx_p2p.mooncake traces/sglang.json

`play` answers the calls with another result than the trace has, and the times. The form of a trace:

    memory    of each process: names and sizes; every byte is filled
    steps     {"in": process, "call": method, "with": arguments, "is": result}, of the process's engine "engine" (default "")
              {"in": process, "threads": [[steps], [steps]]}: at the same time
              {"repeat": n, "steps": [...]}
              {"do": "start" | "kill", "process": name}: the second start is a restart: another process
              {"same": ["a:x+0", "b:y+64"], "size": bytes}: what must be equal now; "differ" for what must not be
    arguments "x+64": an address here; "b:y+64": one of process b; "@b", "@b/engine": its session; "=text": text; "#n": the answer of the
              step with "as": "n"; {"each": "x{}+64", "of": n}: a list; {"repeat": 64, "of": n}: a list of equal numbers
    again     the program repeats the call until it gets this result, at most so often
"""

import concurrent.futures
import ctypes
import importlib
import json
import os
import pathlib
import random
import subprocess
import sys
import time
from typing import Any

HOST = "127.0.0.1"
TRACES = pathlib.Path(__file__).parent / "traces"

# --- a process of the program ---------------------------------------------------------------------------------------------


class Worker:
    """Does what the lines of its input say."""

    def __init__(self, module: str, name: str, sizes: "dict[str, int]", life: int) -> None:
        self.module = importlib.import_module(module)
        self.engines: "dict[str, Any]" = {}
        self.memory = {}
        for memory, size in sizes.items():
            content = random.Random(f"{name}:{memory}:{life}").randbytes(size)
            self.memory[memory] = ctypes.create_string_buffer(content, size)

    def run(self) -> None:
        print(json.dumps({name: ctypes.addressof(memory) for name, memory in self.memory.items()}), flush=True)
        for line in sys.stdin:
            print(json.dumps(self.do(json.loads(line))), flush=True)

    def do(self, asked: Any) -> Any:
        if "threads" in asked:
            with concurrent.futures.ThreadPoolExecutor(len(asked["threads"])) as pool:
                return list(pool.map(lambda steps: [self.do(one) for one in steps], asked["threads"]))
        if "bytes" in asked:
            return ctypes.string_at(*asked["bytes"]).hex()
        # A program makes a new object to initialize it once more.
        if asked["call"] == "initialize":
            self.engines[asked["engine"]] = self.module.TransferEngine()
        method = getattr(self.engines[asked["engine"]], asked["call"])
        for _ in range(asked["again"]):
            begun = time.perf_counter()
            found = method(*asked["with"])
            if found == asked["is"]:
                break
        return [found, time.perf_counter() - begun]


# --- the program ----------------------------------------------------------------------------------------------------------


class Process:
    def __init__(self, module: str, name: str, sizes: "dict[str, int]", life: int) -> None:
        self.running = subprocess.Popen(
            [sys.executable, __file__, module, "--worker", json.dumps([name, sizes, life])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("MOONCAKE_SCRIPT_LOG") else subprocess.DEVNULL,
            text=True,
            env={"FLAGCX_P2P_FABRIC": "software", **os.environ},
        )
        self.memory = self.answer()
        self.ports: "dict[str, int]" = {}

    def ask(self, question: Any) -> Any:
        assert self.running.stdin is not None
        print(json.dumps(question), file=self.running.stdin, flush=True)
        return self.answer()

    def end(self) -> None:
        self.running.kill()
        self.running.communicate()

    def answer(self) -> Any:
        assert self.running.stdout is not None
        line = self.running.stdout.readline()
        assert line, f"a process ended as {self.running.wait()}"
        return json.loads(line)


class Play:
    def __init__(self, module: str, trace: Any) -> None:
        self.module, self.trace = module, trace
        self.processes: "dict[str, Process]" = {}
        self.lives: "dict[str, int]" = {}
        self.answers: "dict[str, Any]" = {}
        #: Calls, those with another result, and the seconds in them.
        self.calls, self.wrong, self.seconds = 0, [], 0.0

    def steps(self, steps: Any) -> None:
        for number, step in enumerate(steps):
            if "repeat" in step:
                for _ in range(step["repeat"]):
                    self.steps(step["steps"])
            elif "do" in step:
                self.life(step["do"], step["process"])
            elif "size" in step:
                self.compare(step)
            else:
                process = self.processes[step["in"]]
                self.look(step, process, process.ask(self.question(step, step["in"])))

    def life(self, do: str, name: str) -> None:
        if do == "start":
            self.lives[name] = self.lives.get(name, 0) + 1
            self.processes[name] = Process(self.module, name, self.trace["memory"][name], self.lives[name])
        else:
            self.processes[name].end()

    def compare(self, step: Any) -> None:
        same, kind = ("same" in step), "same" if "same" in step else "differ"
        content = []
        for place in step[kind]:
            process, _, _ = place.partition(":")
            content.append(self.processes[process].ask({"bytes": [self.address(place, ""), step["size"]]}))
        self.calls += 1
        if (content[0] == content[1]) != same:
            self.wrong.append(f"{step[kind]}: not {kind}")

    def question(self, step: Any, name: str) -> Any:
        if "threads" in step:
            return {"threads": [[self.question(one, name) for one in steps] for steps in step["threads"]]}
        given = [self.argument(one, name) for one in step.get("with", [])]
        found = {"call": step["call"], "engine": step.get("engine", ""), "with": given, "again": step.get("again", 1)}
        return {**found, "is": step.get("is")}

    def look(self, step: Any, process: Process, answer: Any) -> None:
        if "threads" in step:
            for steps, answers in zip(step["threads"], answer, strict=True):
                for one, found in zip(steps, answers, strict=True):
                    self.look(one, process, found)
            return
        found, seconds = answer
        self.calls += 1
        self.seconds += seconds
        if step["call"] == "get_rpc_port":
            process.ports[step.get("engine", "")] = found
        if "as" in step:
            self.answers[step["as"]] = found
        if "is" in step and found != step["is"]:
            self.wrong.append(f"{step}: {found}")

    def argument(self, given: Any, name: str) -> Any:
        if isinstance(given, list):
            return [self.argument(one, name) for one in given]
        if isinstance(given, dict) and "each" in given:
            return [self.argument(given["each"].format(number), name) for number in range(given["of"])]
        if isinstance(given, dict):
            return [given["repeat"]] * given["of"]
        if not isinstance(given, str):
            return given
        if given.startswith("="):
            return given[1:]
        if given.startswith("#"):
            return self.answers[given[1:]]
        if given.startswith("@"):
            process, _, engine = given[1:].partition("/")
            return f"{HOST}:{self.processes[process].ports[engine]}"
        return self.address(given, name)

    def address(self, text: str, name: str) -> int:
        process, _, place = text.rpartition(":")
        memory, _, offset = place.partition("+")
        return self.processes[process or name].memory[memory] + int(offset or 0)


def play(module: str, trace: pathlib.Path) -> Play:
    """Plays it; all its processes have ended when this returns."""
    found = Play(module, json.loads(trace.read_text()))
    try:
        found.steps(found.trace["steps"])
    finally:
        for process in found.processes.values():
            process.end()
    return found


def main() -> None:
    module, *more = sys.argv[1:]
    if more[0] == "--worker":
        Worker(module, *json.loads(more[1])).run()
        os._exit(0)
    for name in more:
        played = play(module, pathlib.Path(name))
        result = f"{played.calls:4} calls {played.seconds:8.3f} s, {len(played.wrong)} of another result"
        print(f"{pathlib.Path(name).stem:20} {module:22} {result}")
        for line in played.wrong:
            print(f"    {line}")


if __name__ == "__main__":
    main()
