"""The processes of the example. Each prints lines of JSON."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lifetime

HERE = Path(__file__).resolve().parent
# Whatever happens, the example ends.
LIMIT_SECONDS = 120.0


class Failed(Exception):
    """A process ended too early."""


class Process:
    """One of them."""

    def __init__(self, program: str, *arguments: str) -> None:
        # Where engines listen. Without it that is the address of an interface that the engine chooses.
        environment = os.environ | lifetime.environment() | {"FLAGCX_P2P_BIND": "127.0.0.1", "PYTHONDONTWRITEBYTECODE": "1"}
        self._program = program
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / program), *arguments],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def tell(self, text: str) -> None:
        """A line for its input."""
        assert self._process.stdin is not None
        print(text, file=self._process.stdin, flush=True)

    def text(self) -> str:
        """Its next line."""
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return line
        raise Failed(f"{self._program} ended with status {self._process.wait()}")

    def line(self, key: str) -> "dict[str, Any]":
        """Its next line that has this key."""
        while True:
            found: "dict[str, Any]" = json.loads(self.text())
            if "ended" in found:
                raise Failed(f"{self._program}: {found['ended']}")
            if key in found:
                return found

    def version(self, version: int) -> "dict[str, Any]":
        """Its answer about a version, or about a newer one."""
        while True:
            found = self.line("version")
            if found["version"] >= version:
                return found

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Processes:
    """All of them. None is left at the end."""

    def __init__(self) -> None:
        self._all: "list[Process]" = []
        self._watchdog = threading.Timer(LIMIT_SECONDS, self._kill_all)

    def start(self, program: str, *arguments: str) -> Process:
        process = Process(program, *arguments)
        self._all.append(process)
        return process

    def __enter__(self) -> Self:
        self._watchdog.start()
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        self._watchdog.cancel()
        self._kill_all()

    def _kill_all(self) -> None:
        for process in reversed(self._all):
            process.kill()
