"""Programs that use all the processor time that nothing else wants: what a busy machine does to the tail of latencies."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys

NICE = 19
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Burners:
    """Started when they are needed first, stopped between their uses, killed at the end."""

    def __init__(self):
        self.processes = []

    @contextlib.contextmanager
    def running(self, count):
        """Lets so many of them run."""
        while len(self.processes) < count:
            self.processes.append(start())
        chosen = self.processes[:count]
        for process in chosen:
            process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            for process in chosen:
                process.send_signal(signal.SIGSTOP)

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes = []


def start():
    process = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"], preexec_fn=prepare,
                               start_new_session=True)
    # Where the kernel divides time between sessions first, a nice value counts within a session only: the session's own
    # value has to be set too.
    with contextlib.suppress(OSError), open(f"/proc/{process.pid}/autogroup", "w", encoding="ascii") as file:
        file.write(str(NICE))
    process.send_signal(signal.SIGSTOP)
    return process


def prepare():
    """In the new process. It ends with the runner, also when that one is killed."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(NICE)
