"""The runner of `./x bench python` sees bytes that did not move and drivers that hang, and leaves no process."""

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import unittest

BENCH = pathlib.Path(__file__).resolve().parents[1] / "python_bench"
sys.path.insert(0, str(BENCH))
os.environ["PYTHON_BENCH_POOL_MIB"] = "32"
# A program that starts drivers has no threads, and numpy would start some.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

try:
    import numpy
except ImportError:
    print("skipped: all: numpy is not installed")
    sys.exit(77)  # as run.py

import content
from driver import Driver, Failed

#: What a driver of this test begins with: an engine with the target in the same process, which may leave writes out.
COPIES = """
import ctypes, sys
import numpy
import content, side

class Copies(side.Initiator):
    version = "1"
    def __init__(self, leaves_out):
        self.leaves_out, self.memory, self.target = leaves_out, content.new_memory(), content.new_memory()
        self.local, self.remote = self.memory.ctypes.data, self.target.ctypes.data
    def write(self, local, remote, size):
        if self.leaves_out != ("large" if size == content.POOL else "one_write"):
            ctypes.memmove(remote, local, size)
    def read(self, local, remote, size):
        ctypes.memmove(local, remote, size)
    def submit(self, local, remote, size):
        for here, there in zip(local.tolist(), remote.tolist()):
            if self.leaves_out != "scattered" or there != remote[-1]:
                ctypes.memmove(there, here, size)
    def wait(self, transfer):
        pass
side.answer(Copies(sys.argv[1]), side.KINDS)
"""


def driver(program: str, *arguments: str) -> Driver:
    return Driver([sys.executable, "-c", program, *arguments], dict(os.environ, PYTHONPATH=str(BENCH)), None)


class Verifying(unittest.TestCase):
    def test_each_kind_is_verified_by_itself(self) -> None:
        for leaves_out in ("nothing", "one_write", "scattered", "large"):
            with self.subTest(leaves_out=leaves_out):
                process = driver(COPIES, leaves_out)
                self.addCleanup(process.close)
                self.assertEqual(process.line(30), "1")
                for _ in range(2):
                    verified = json.loads(process.ask(30))["verified"]
                    self.assertEqual(verified["large"], leaves_out != "large")
                    if leaves_out != "large":
                        self.assertEqual([kind for kind, fine in verified.items() if not fine], self.expected(leaves_out))

    @staticmethod
    def expected(leaves_out: str) -> "list[str]":
        # What an earlier kind left out is missing in the target until the large write.
        return {"nothing": [], "one_write": ["one_write", "scattered"], "scattered": ["scattered"]}[leaves_out]

    def test_a_word_in_the_wrong_place_is_seen(self) -> None:
        here, there = content.new_memory(), content.new_memory()
        expected = content.Content(here)

        def read(offset: int, size: int) -> None:
            here[content.POOL : content.POOL + size] = there[offset : offset + size]

        self.assertTrue(expected.is_there(read))
        there.view(numpy.uint64)[[5, 6]] = there.view(numpy.uint64)[[6, 5]]
        self.assertFalse(expected.is_there(read))


class Drivers(unittest.TestCase):
    def test_one_that_hangs_or_ends_fails(self) -> None:
        for program, text in (("import time; time.sleep(60)", "no answer in 0.2 s"), ("exit(3)", "it ended with status 3")):
            process = driver(program)
            self.addCleanup(process.close)
            with self.assertRaisesRegex(Failed, text):
                process.line(0.2 if "sleep" in program else 30)

    def test_they_end_with_the_runner(self) -> None:
        program = (
            "import sys, time; from driver import Driver\n"
            "one = Driver([sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'], None, None)\n"
            "print(one.line(30), flush=True); time.sleep(60)"
        )
        runner = subprocess.Popen(
            [sys.executable, "-c", program], env=dict(os.environ, PYTHONPATH=str(BENCH)), stdout=subprocess.PIPE, text=True
        )
        assert runner.stdout is not None
        with runner.stdout:
            child = os.pidfd_open(int(runner.stdout.readline()))
            signal.pidfd_send_signal(child, signal.SIGSTOP)
            runner.kill()
            runner.wait()
        self.addCleanup(os.close, child)
        self.assertTrue(select.select([child], [], [], 5)[0], "the driver is there 5 s after its runner has ended")


if __name__ == "__main__":
    unittest.main()
