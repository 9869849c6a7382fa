"""No process of the example is left over: each ends with the one that started it, however that ends."""

import ctypes
import os
import signal
import sys

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
