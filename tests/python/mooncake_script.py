"""Calls of `TransferEngine` with what they answer, for this package's class and for Mooncake's: one script, two processes.

    mooncake_script.py flagcx_p2p.mooncake
    mooncake_script.py mooncake.engine --json

Prints a table, or JSON: for each call its result, in a form that both packages can share. Each call that might end its process gets one
of its own; then the signal is the result.
"""

import concurrent.futures
import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

SIZE = int(os.environ.get("MOONCAKE_SCRIPT_SIZE", 1 << 16))
HOST = "127.0.0.1"
#: Nothing listens there.
UNUSED = f"{HOST}:1"


class Side:
    """An engine with memory, in each of the two processes."""

    def __init__(self, module: str) -> None:
        self.module = importlib.import_module(module)
        self.engine = self.module.TransferEngine()
        self.bytes = ctypes.create_string_buffer(bytes([len(sys.argv)]) * SIZE, SIZE)
        self.address = ctypes.addressof(self.bytes)

    def open(self, protocol: str = "tcp") -> int:
        return int(self.engine.initialize(HOST, "P2PHANDSHAKE", protocol, ""))

    @property
    def session(self) -> str:
        return f"{HOST}:{self.engine.get_rpc_port()}"


def serve(side: Side) -> None:
    """The target: it answers one question for each line of its input."""
    assert side.open() == 0 and side.engine.register_memory(side.address, SIZE) == 0
    answer(side.session, side.address)
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        if what == "bytes":
            start, count = arguments
            answer(list(side.bytes.raw[start : start + count]))
        elif what == "messages":
            answer([(note.name, note.msg) for note in side.engine.get_notifies()])
        else:
            answer(getattr(side.engine, what)(*arguments))


def answer(*values: Any) -> None:
    print(json.dumps(values if len(values) > 1 else values[0]), flush=True)


class Pair(Side):
    """The initiator, and what it knows of the target."""

    def __init__(self, module: str) -> None:
        super().__init__(module)
        self.target = child(module, "--target")
        self.peer, self.there = json.loads(self.line())
        assert self.open() == 0
        self.notify, self.opcode = self.module.TransferNotify, self.module.TransferOpcode

    def line(self) -> str:
        assert self.target.stdout is not None
        return self.target.stdout.readline()

    def ask(self, *question: Any) -> Any:
        assert self.target.stdin is not None
        print(json.dumps(question), file=self.target.stdin, flush=True)
        return json.loads(self.line())

    def write(self, local: int = 0, remote: int = 0, size: int = 64, peer: str = "") -> int:
        """From and to these offsets."""
        here, there = self.address + local, self.there + remote
        return int(self.engine.transfer_sync_write(peer or self.peer, here, there, size))

    def batch(self, call: str, ranges: "list[tuple[int, int, int]]", *more: Any, peer: str = "") -> int:
        here = [self.address + one[0] for one in ranges]
        there = [self.there + one[1] for one in ranges]
        return int(getattr(self.engine, call)(peer or self.peer, here, there, [one[2] for one in ranges], *more))

    def until_end(self, number: int) -> int:
        """The first status that is not 0."""
        while (code := self.engine.transfer_check_status(number)) == 0:
            pass
        return int(code)

    def settle(self) -> None:
        """Mooncake's connection may be gone after a failure, which then fails one more call."""
        for _ in range(50):
            if self.write() == 0:
                return


def child(module: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, __file__, module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("MOONCAKE_SCRIPT_LOG") else subprocess.DEVNULL,
        text=True,
    )


#: What one of these answers is the result of the row.
Row = Callable[[Any], Any]
#: With two processes, in this order.
TOGETHER: "dict[str, Row]" = {}
#: Each in a process of its own.
ALONE: "dict[str, Row]" = {}


def row(text: str, rows: "dict[str, Row]" = TOGETHER) -> "Callable[[Row], Row]":
    def add(function: Row) -> Row:
        assert text not in rows, text
        rows[text] = function
        return function

    return add


def result(call: Row, of: Any) -> Any:
    """Numbers that mean nothing elsewhere are put as a word."""
    try:
        found = call(of)
    except Exception as error:  # what it raises is the result
        return type(error).__name__
    return "a number" if isinstance(found, int) and found > 1 << 10 else found


def alone(module: str, text: str) -> Any:
    process = child(module, "--alone", text)
    out = process.communicate(timeout=60)[0]
    if process.returncode < 0:
        return f"the process ends: {signal.Signals(-process.returncode).name}"
    return json.loads(out.splitlines()[-1])


def run(module: str) -> "dict[str, Any]":
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = dict(zip(ALONE, pool.map(lambda text: alone(module, text), ALONE), strict=True))
    pair = Pair(module)
    for text, call in TOGETHER.items():
        found[text] = result(call, pair)
        if found[text] == -1 and pair.target.poll() is None:
            pair.settle()
    return found


def main() -> None:
    import mooncake_rows  # noqa: F401  fills the two tables

    module, *more = sys.argv[1:]
    if more[:1] == ["--target"]:
        serve(Side(module))
    elif more[:1] == ["--alone"]:
        print(json.dumps(result(ALONE[more[1]], Side(module))), flush=True)
    elif more == ["--json"]:
        print(json.dumps(run(module)))
    else:
        for text, found in run(module).items():
            print(f"{text:72} {found}")
    sys.stdout.flush()
    os._exit(0)  # without the clean-up of libraries: the peer is gone


if __name__ == "__main__":
    # The rows import this file: they must fill the tables of this module, not of a second one.
    sys.modules["mooncake_script"] = sys.modules["__main__"]
    main()
