"""The example with Ray, on two nodes, with a small model; and that nothing is left when it is killed.

A proof, because it needs Ray, which is installed from PyPI, and a cluster takes 10 to 30 s to start.
"""

import os
import pathlib
import re
import select
import subprocess
import sys
import time
import unittest

from lines import Lines

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "python" / "examples" / "ray_weights" / "main.py"
#: 31 MiB.
SMALL = ("--layers", "2", "--vocabulary", "2000")
LIMIT_SECONDS = 240.0


def start(*arguments: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen([sys.executable, str(EXAMPLE), *SMALL, *arguments], env=environment, stdout=subprocess.PIPE, text=True)


class Ray(unittest.TestCase):
    def test_a_rollout_that_is_killed_catches_up_and_every_byte_is_right(self) -> None:
        example = start("--rounds", "2")
        try:
            output, _ = example.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            example.kill()
            output, _ = example.communicate(timeout=30)
            self.fail(f"the example has not ended within {LIMIT_SECONDS:.0f} s; it has printed: {output}")
        print(output)
        self.assertEqual(example.returncode, 0)
        self.assertIn("4 rollouts on 2 nodes of Ray", output)
        self.assertRegex(output, r"version 3: the rollout that was killed has it, in another process \((\d+), then (?!\1)\d+\)")
        for row in ("ours, cross-memory", "Ray, mapped", "Ray, copied", "ours, tcp"):
            self.assertRegex(output, rf"(?m)^{row} +\d+ +\d+ +\d+ +\d+$")
        self.assertIn("every byte compared: 0 wrong tensors", output)

    def test_no_process_and_no_file_is_left_when_it_is_killed(self) -> None:
        example = start("--rounds", "1000")
        self.addCleanup(end, example)
        Lines(example, "the example").until("version 1:", LIMIT_SECONDS)
        children = of_parent(example.pid)
        folder = next(found[1] for child in children if (found := re.search(r"RAY_TMPDIR=(/tmp/ray-\w+)", environment_of(child))))
        self.assertGreater(len(of_folder(folder)), 8, "schedulers, agents, actors")
        handles = [os.pidfd_open(process) for process in of_folder(folder)]
        end(example)
        deadline = time.monotonic() + 30
        left = [handle for handle in handles if not select.select([handle], [], [], max(0, deadline - time.monotonic()))[0]]
        for handle in handles:
            os.close(handle)
        self.assertEqual((len(left), of_folder(folder)), (0, []))
        while pathlib.Path(folder).exists():
            self.assertLess(time.monotonic(), deadline, "the folder is left")
            time.sleep(0.1)


def end(example: "subprocess.Popen[str]") -> None:
    example.kill()
    example.wait(30)


def of_parent(parent: int) -> "list[int]":
    return [int(child) for child in pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def of_folder(folder: str) -> "list[int]":
    """The processes of the cluster that has its files there."""
    processes = (int(entry.name) for entry in pathlib.Path("/proc").glob("[0-9]*"))
    return [process for process in processes if f"RAY_TMPDIR={folder}\0" in environment_of(process)]


def environment_of(process: int) -> str:
    try:
        return pathlib.Path(f"/proc/{process}/environ").read_text(errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    unittest.main()
