"""No process of the example is left over: each ends with the one that started it, however that ends."""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

_PARENT_VARIABLE = "EXAMPLE_PARENT"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def environment() -> "dict[str, str]":
    """The variable that `end_with_parent` reads in the processes that this one starts."""
    return {_PARENT_VARIABLE: str(os.getpid())}


def end_with_parent() -> None:
    """The kernel kills this process, also a stopped one, when the thread that started it ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    # It may have ended before that call.
    if os.getppid() != int(os.environ.get(_PARENT_VARIABLE, os.getppid())):
        sys.exit("the process that started this one has ended")


@contextlib.contextmanager
def limit(seconds: float, what: str) -> "Iterator[None]":
    """TimeoutError in the main thread if the block takes longer, for calls that have no time-out of their own."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"{what} took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
