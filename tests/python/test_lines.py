"""What the tests wait with: lines of a process, and environments with packages."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

from lines import Lines

HERE = pathlib.Path(__file__).resolve().parent


class OfAProcess(unittest.TestCase):
    def lines(self, program: str) -> Lines:
        process = subprocess.Popen([sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, text=True)

        def end() -> None:
            process.kill()
            process.wait()

        self.addCleanup(end)
        return Lines(process, "the program")

    def test_lines_come_in_order(self) -> None:
        lines = self.lines("print('a'); print('b'); print('c: 1')")
        self.assertEqual((lines.next(20), lines.until("c", 20)), ("a", "c: 1"))

    def test_one_that_hangs_is_told_with_what_it_has_printed(self) -> None:
        lines = self.lines("import time; print('first'); time.sleep(60)")
        lines.next(20)
        begun = time.monotonic()
        with self.assertRaisesRegex(AssertionError, "the program has not printed .*'second' within 0 s; its lines: first"):
            lines.until("second", 0.2)
        self.assertLess(time.monotonic() - begun, 5)

    def test_one_that_ends_is_told_with_its_status(self) -> None:
        lines = self.lines("print('first'); raise SystemExit(3)")
        for _ in range(2):
            with self.assertRaisesRegex(AssertionError, "ended with status 3, without .*; its lines: first"):
                lines.until("second", 20)


class InEnvironment(unittest.TestCase):
    """`in_environment.sh` with an interpreter that cannot make an environment."""

    def run_with(self, interpreter: str) -> "subprocess.CompletedProcess[str]":
        with tempfile.TemporaryDirectory() as folder:
            python = pathlib.Path(folder) / "python"
            python.write_text(f"#!/bin/sh\n{interpreter}\n", encoding="utf-8")
            python.chmod(0o755)
            command = [str(HERE / "in_environment.sh"), f"{folder}/made", "a-package", "--", "-c", "print('ran')"]
            environment = {**os.environ, "PYTHON": str(python)}
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    def test_a_module_that_is_missing_is_not_run_and_says_which(self) -> None:
        for said in (
            "/usr/bin/python3: No module named venv",
            "Error: Command '[...]': No module named ensurepip",
            "The virtual environment was not created successfully because ensurepip is not available.  On Debian/Ubuntu systems, you",
        ):
            ended = self.run_with(f'echo "{said}" >&2; exit 1')
            self.assertEqual(ended.returncode, 77, ended.stdout + ended.stderr)
            self.assertRegex(ended.stdout, r"not run: .*python3-venv")
            self.assertIn(said[:30], ended.stdout)

    def test_any_other_failure_fails_and_is_printed(self) -> None:
        ended = self.run_with('echo "OSError: [Errno 28] No space left on device" >&2; exit 1')
        self.assertEqual(ended.returncode, 1, ended.stdout + ended.stderr)
        self.assertIn("cannot make the environment", ended.stdout)
        self.assertIn("No space left on device", ended.stdout)


if __name__ == "__main__":
    unittest.main()
