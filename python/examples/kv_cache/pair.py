"""The two processes of a run: started, one of them killed in the middle if asked, and what they answer."""

import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import lifetime
from protocol import KEY_VARIABLE

HERE = Path(__file__).resolve().parent
# Whatever happens, the example ends.
LIMIT_SECONDS = 120.0
#: Blocks of each cache, 512 MiB. 64 sequences of 3 blocks on average are in flight, and the rest holds some that may be evicted.
BLOCKS = 256


class Run(NamedTuple):
    """What to do."""

    transport: str
    path: str
    #: Which Python starts it: NIXL may be installed elsewhere.
    python: str = sys.executable
    #: How much to move at least, in batches of 64 sequences.
    mib: int = 1
    #: How long a GPU would compute a layer of a prompt.
    layer_ms: float = 0.0
    kills_prefill: bool = False


class Failed(Exception):
    """A process ended without its results."""


class Pair:
    """Both processes. They have moved the batches when this has been made, and wait for `sample` or `finish`."""

    def __init__(self, what: Run) -> None:
        self.what = what
        self._environment = os.environ | _settings(what) | lifetime.environment()
        self._environment |= {KEY_VARIABLE: secrets.token_hex(32), "PYTHONDONTWRITEBYTECODE": "1"}
        self._processes: "list[subprocess.Popen[str]]" = []
        self._victim: "subprocess.Popen[str] | None" = None
        self._first_token_ms: "list[float]" = []
        self._watchdog = threading.Timer(LIMIT_SECONDS, self._kill_all)
        self._watchdog.start()
        try:
            self._batches = self._move()
        except BaseException:
            self.close()
            raise

    def _move(self) -> "dict[str, Any]":
        self._decode = self._start("decode.py", self.what.mib)
        port = self._line("port")["port"]
        prefill = self._start("prefill.py", port, self.what.layer_ms)
        self._line("half")
        if self.what.kills_prefill:
            self._victim = prefill
            prefill.send_signal(signal.SIGKILL)
            prefill.wait()
            self._start("prefill.py", port, 0)
        return self._line("seconds")

    def sample(self) -> None:
        """Measures the time to the first token once."""
        assert self._decode.stdin is not None
        print("sample", file=self._decode.stdin, flush=True)
        self._first_token_ms.append(self._line("first_token_ms")["first_token_ms"])

    def finish(self) -> "dict[str, Any]":
        """Ends both, and answers the results."""
        assert self._decode.stdin is not None
        self._decode.stdin.close()
        # The first one computed the prompt.
        samples = self._first_token_ms[1:] or [0.0]
        results = self._batches | self._line("prefill")
        results |= {"first_token_ms": statistics.median(samples), "first_token_best_ms": min(samples)}
        for process in self._processes:
            process.wait(timeout=10)
        return results

    def close(self) -> None:
        self._watchdog.cancel()
        self._kill_all()
        for process in self._processes:
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: "type[BaseException] | None", error: "BaseException | None", trace: "TracebackType | None"
    ) -> None:
        self.close()

    def _start(self, program: str, *arguments: object) -> "subprocess.Popen[str]":
        what = self.what
        command = [what.python, str(HERE / program), what.transport, what.path, str(BLOCKS), *map(str, arguments)]
        process = subprocess.Popen(
            command, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._processes.append(process)
        threading.Thread(target=self._watch, args=(process,), daemon=True).start()
        return process

    def _watch(self, process: "subprocess.Popen[str]") -> None:
        """A process that fails ends the run: decode would wait for another one."""
        if process.wait() != 0 and process is not self._victim:
            self._kill_all()

    def _kill_all(self) -> None:
        for process in self._processes:
            process.kill()

    def _line(self, key: str) -> "dict[str, Any]":
        """The next line of decode, which has this key."""
        assert self._decode.stdout is not None
        line = self._decode.stdout.readline()
        if not line:
            raise Failed(f"a process of the run {self.what.transport}, {self.what.path} failed: status {self._decode.wait()}")
        answer: "dict[str, Any]" = json.loads(line)
        if key not in answer:
            raise Failed(f"decode answered {line!r} where {key!r} was expected")
        return answer


def _settings(what: Run) -> "dict[str, str]":
    """The variables that choose a path, for both libraries."""
    if what.transport == "nixl":
        return {"UCX_TLS": {"tcp": "tcp", "cross-memory": "posix,sysv,cma,tcp"}[what.path], "NIXL_LOG_LEVEL": "WARN"}
    return {"FLAGCX_P2P_FABRIC": "software", "FLAGCX_P2P_PATH": what.path, "FLAGCX_P2P_BIND": "127.0.0.1"}
