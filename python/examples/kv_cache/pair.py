"""Starts the two processes of a run, kills one in the middle if asked, and answers the results."""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

from protocol import KEY_VARIABLE

HERE = Path(__file__).resolve().parent
# Whatever happens, the example ends.
LIMIT_SECONDS = 120.0


class Run(NamedTuple):
    """What to do."""

    transport: str
    path: str
    #: Which Python starts it: NIXL may be installed elsewhere.
    python: str = sys.executable
    #: How much to move at least, in batches of 64 sequences.
    mib: int = 1
    #: How often one prompt is fetched alone, for the time to the first token.
    samples: int = 0
    #: How long a GPU would compute a layer of a prompt.
    layer_ms: float = 0.0
    kills_prefill: bool = False


#: Blocks of each cache, 512 MiB. 64 sequences of 3 blocks on average are in flight, and the rest holds some that may be evicted.
BLOCKS = 256


class Failed(Exception):
    """A process ended without its results."""


def run(what: Run) -> "dict[str, Any]":
    """Runs it, and answers the results of decode."""
    environment = dict(os.environ, **_settings(what), **{KEY_VARIABLE: secrets.token_hex(32)}, PYTHONDONTWRITEBYTECODE="1")
    processes: "list[subprocess.Popen[str]]" = []

    def start(program: str, *arguments: object) -> "subprocess.Popen[str]":
        command = [what.python, str(HERE / program), what.transport, what.path, str(BLOCKS), *map(str, arguments)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    def kill_all() -> None:
        for process in processes:
            process.kill()

    watchdog = threading.Timer(LIMIT_SECONDS, kill_all)
    watchdog.start()
    try:
        decode = start("decode.py", what.mib, what.samples)
        port = _line(decode, "port")
        prefill = start("prefill.py", port, what.layer_ms)
        _line(decode, "half")
        if what.kills_prefill:
            prefill.send_signal(signal.SIGKILL)
            prefill.wait()
            start("prefill.py", port, 0)
        results: "dict[str, Any]" = _line(decode)
        for process in processes:
            process.wait(timeout=10)
        return results
    finally:
        watchdog.cancel()
        kill_all()
        for process in processes:
            process.wait()


def _line(process: "subprocess.Popen[str]", key: str = "") -> Any:
    """The next line of a process, or a value of it."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise Failed(f"{process.args!r} ended with status {process.wait()}")
    answer: "dict[str, Any]" = json.loads(line)
    return answer[key] if key else answer


def _settings(what: Run) -> "dict[str, str]":
    """The variables that choose a path, for both libraries."""
    if what.transport == "nixl":
        return {"UCX_TLS": {"tcp": "tcp", "cross-memory": "posix,sysv,cma,tcp"}[what.path], "NIXL_LOG_LEVEL": "WARN"}
    return {"FLAGCX_P2P_FABRIC": "software", "FLAGCX_P2P_PATH": what.path, "FLAGCX_P2P_BIND": "127.0.0.1"}
