"""The processes of the larger examples end with main.py, also when that is killed and can do nothing more for them."""

import contextlib
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
import unittest

import pair  # noqa: F401  the engine's environment

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "python" / "examples"
sys.path.insert(0, str(EXAMPLES / "kv_cache"))

try:
    import numpy  # noqa: F401  the examples need it
except ImportError:
    print("skipped: all: numpy is not installed")
    sys.exit(77)  # as run.py

import lifetime

#: How long a process may take to end: the kernel ends it at once.
SECONDS = 5.0


class Example:
    """An example that runs, with its processes by program."""

    def __init__(self, name: str, programs: "list[str]") -> None:
        command = [sys.executable, str(EXAMPLES / name / "main.py")]
        environment = dict(os.environ, PYTHONUNBUFFERED="1")
        self.main = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.children: "dict[int, str]" = {}
        deadline = time.monotonic() + 30
        while sorted(self.children.values()) != sorted(programs):
            assert time.monotonic() < deadline, f"{name} has {self.children}"
            assert self.main.poll() is None, f"{name} ended: {self.main.returncode}"
            time.sleep(0.01)
            self.children = self._look()
        # Of each child, what tells of its end, also when its number is another one's by then.
        self.handles = {os.pidfd_open(child): program for child, program in self.children.items()}

    def _look(self) -> "dict[int, str]":
        children = pathlib.Path(f"/proc/{self.main.pid}/task/{self.main.pid}/children").read_text().split()
        found = {}
        for child in children:
            with contextlib.suppress(OSError):
                words = pathlib.Path(f"/proc/{child}/cmdline").read_text().split("\0")
                found.update({int(child): pathlib.Path(word).name for word in words if word.endswith(".py")})
        return found

    def until(self, beginning: str) -> None:
        """Until main has printed a line that begins so."""
        assert self.main.stdout is not None
        for line in self.main.stdout:
            if line.startswith(beginning):
                return
        raise AssertionError(f"main.py ended without {beginning!r}")

    def pid(self, program: str) -> int:
        return next(child for child, name in self.children.items() if name == program)

    def remaining(self) -> "list[str]":
        """Kills main, and answers which children are there some seconds later; none is left then."""
        self.main.kill()
        self.main.wait()
        assert self.main.stdout is not None
        self.main.stdout.close()
        deadline = time.monotonic() + SECONDS
        left = []
        for handle, program in self.handles.items():
            if not select.select([handle], [], [], max(0, deadline - time.monotonic()))[0]:
                left.append(program)
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        return left


class MainIsKilled(unittest.TestCase):
    def test_both_sides_of_a_cache_end(self) -> None:
        self.assertEqual(Example("kv_cache", ["decode.py", "prefill.py"]).remaining(), [])

    def test_decode_ends_without_a_prefill(self) -> None:
        example = Example("kv_cache", ["decode.py", "prefill.py"])
        example.main.send_signal(signal.SIGSTOP)  # it would end decode
        os.kill(example.pid("prefill.py"), signal.SIGKILL)
        self.assertEqual(example.remaining(), [])

    def test_a_stopped_receiver_ends(self) -> None:
        example = Example("weights", ["trainer.py", *["receiver.py"] * 3])
        example.until("version 1: at all")
        os.kill(example.pid("receiver.py"), signal.SIGSTOP)
        self.assertEqual(example.remaining(), [])


class PrefillIsKilled(unittest.TestCase):
    def test_the_run_fails_at_once_when_that_was_not_asked_for(self) -> None:
        example = Example("kv_cache", ["decode.py", "prefill.py"])
        os.kill(example.pid("prefill.py"), signal.SIGKILL)
        began = time.monotonic()
        self.assertEqual(example.main.wait(30), 1)
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual(example.remaining(), [])


class Waiting(unittest.TestCase):
    def test_a_call_without_a_time_out_has_a_limit(self) -> None:
        import protocol

        os.environ[protocol.KEY_VARIABLE] = "00" * 32
        with protocol.listen() as listener, self.assertRaisesRegex(TimeoutError, "the wait for a peer took more than 0.1 s"):
            with lifetime.limit(0.1, "the wait for a peer"):
                listener.accept()


if __name__ == "__main__":
    unittest.main()
