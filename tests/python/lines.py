"""Lines of a process, each waited for with a limit."""

import queue
import subprocess
import threading
import time
from typing import Optional


class Lines:
    """What a process prints, read by a thread, which closes the pipe at its end. Start the process with stdout=PIPE and text=True."""

    def __init__(self, process: "subprocess.Popen[str]", name: str) -> None:
        self.process, self.name = process, name
        self.seen: "list[str]" = []
        self._lines: "queue.SimpleQueue[Optional[str]]" = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def next(self, seconds: float, wanted: str = "a line") -> str:
        """The next line. An AssertionError, with all that came before it, if there is none in that time, or the process has ended."""
        try:
            line = self._lines.get(timeout=max(0.0, seconds))
        except queue.Empty:
            raise AssertionError(f"{self.name} has not printed {wanted} within {seconds:.0f} s; {self._so_far()}") from None
        if line is None:
            self._lines.put(None)
            status = self.process.wait(seconds)
            raise AssertionError(f"{self.name} has ended with status {status}, without {wanted}; {self._so_far()}")
        self.seen.append(line)
        return line

    def until(self, beginning: str, seconds: float) -> str:
        """The first line that begins so, within this time for all lines before it too."""
        end = time.monotonic() + seconds
        while True:
            line = self.next(end - time.monotonic(), f"a line that begins with {beginning!r}")
            if line.startswith(beginning):
                return line

    def _so_far(self) -> str:
        return "its lines: " + " | ".join(self.seen[-20:]) if self.seen else "it has printed nothing"
