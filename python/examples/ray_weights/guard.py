"""Ends what a local Ray cluster has started, and removes its folder, when the program that started the cluster is gone.

guard.py FOLDER                 # its input ends when that program does, also when it is killed

Ray itself then ends its schedulers and the actors, but not its agents.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

# For the processes that Ray ends by itself.
GRACE_SECONDS = 3.0


def main(folder: str) -> None:
    sys.stdin.read()
    deadline = time.monotonic() + GRACE_SECONDS
    while left := _with_variable(f"RAY_TMPDIR={folder}"):
        if time.monotonic() > deadline:
            for process in left:
                _kill(process)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


def _with_variable(variable: str) -> "list[int]":
    """The processes that were started with this variable, but this one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if variable.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended, or is another user's
    return [process for process in found if process != os.getpid()]


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    main(sys.argv[1])
