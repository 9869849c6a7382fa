"""Programs in interpreters of their own, and a peer that can be stopped."""

import os
import re
import signal
import subprocess
import sys
import time
from typing import Any

import pair  # noqa: F401  the engine's environment

#: What a program of `Program` begins with: two connected engines, a peer's buffer in `far`, one here in `near`.
PAIR = """
import atexit, gc, os, signal, socket, sys, threading, time
import flagcx_p2p
from flagcx_p2p import Engine, P2pError, Piece
server, client = Engine(), Engine()
far, near = bytearray(1 << 16), bytearray(b"x" * (1 << 16))
remote, local = server.register(far), client.register(near)
server.start_server()
connection = client.connect(f"127.0.0.1:{server.port}")
"""

#: What the process of a `Peer` runs: it serves its memory until its input ends.
_SERVE = """
import sys
from flagcx_p2p import Engine
with Engine() as engine:
    region = engine.register(bytearray(int(sys.argv[1])))
    engine.start_server()
    print(engine.port, region.address, flush=True)
    sys.stdin.read()
"""


#: A line of the engine's log.
_LOGGED = re.compile(r"\S+Z +(INFO|WARN|ERROR) ")


class Program:
    """A program that runs, with what it must end as."""

    def __init__(self, text: str, status: int = 0, arguments: "tuple[str, ...]" = (), **environment: str) -> None:
        self.status = status
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            # The warning is of Python 3.12 and later, at every fork in a process with threads.
            [sys.executable, "-X", "faulthandler", "-W", "ignore::DeprecationWarning", "-c", text, *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, seconds: float) -> "tuple[str, str]":
        """What it printed and what it complained of, without the engine's log. Its status is the expected one."""
        try:
            output, errors = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # where each thread is
            output, errors = self.process.communicate()
            raise AssertionError(f"it hangs: {output}{errors}") from None
        assert self.process.returncode == self.status, f"it ended as {self.process.returncode}: {output}{errors}"
        lines = [line for line in errors.splitlines() if not _LOGGED.match(line)]
        return output, "\n".join(lines)


class Peer:
    """Another process that serves memory."""

    def __init__(self, size: int) -> None:
        self.program = Program(_SERVE, arguments=(str(size),))
        assert self.program.process.stdout is not None
        port, address = self.program.process.stdout.readline().split()
        self.session, self.address = f"127.0.0.1:{port}", int(address)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: Any) -> None:
        self.go_on()
        self.program.end(30)

    def stop(self) -> None:
        self.program.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.program.process.pid, os.WSTOPPED | os.WNOWAIT)

    def kill(self) -> None:
        self.program.status = -signal.SIGKILL
        self.program.process.kill()

    def go_on(self) -> None:
        self.program.process.send_signal(signal.SIGCONT)
