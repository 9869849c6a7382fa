"""The processes that are measured: what they answer, within a time, and that they end with this one."""

import ctypes
import os
import select
import signal
import subprocess
import time

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_RUNNER = os.getpid()
_C = ctypes.CDLL(None)


class Failed(Exception):
    """A driver ended, or did not answer in time."""


class Driver:
    """One process, which answers in lines."""

    def __init__(self, command, environment, log):
        self.name, self._rest = command[1] if len(command) > 1 else command[0], b""
        # preexec_fn is for programs without threads, as this one is. It does for drivers in every language.
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, preexec_fn=_end_with_runner
        )

    def ask(self, seconds):
        """A sample."""
        try:
            self._process.stdin.write(b"sample\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says how it ended
        return self.line(seconds)

    def line(self, seconds):
        """Its next line."""
        deadline, output = time.monotonic() + seconds, self._process.stdout.fileno()
        while b"\n" not in self._rest:
            if not select.select([output], [], [], max(0, deadline - time.monotonic()))[0]:
                raise Failed(f"no answer in {seconds} s")
            part = os.read(output, 1 << 16)
            if not part:
                raise Failed(f"it ended with status {self._process.wait()}")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode().strip()

    def close(self):
        self._process.kill()
        self._process.communicate()


def _end_with_runner():
    _C.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != _RUNNER:  # it ended before that call
        os._exit(1)
