"""A second interpreter in a process, which the package refuses: its engines and classes are the process's."""

import importlib
import os
import unittest
from typing import Any

import pair  # noqa: F401  the engine's environment

import flagcx_p2p
from flagcx_p2p import Engine


class Subinterpreters(unittest.TestCase):
    def test_they_are_refused_in_one_line(self) -> None:
        for name in ("_interpreters", "_xxsubinterpreters"):
            try:
                interpreters: Any = importlib.import_module(name)
                break
            except ImportError:
                continue
        else:
            self.skipTest("this Python has no module for subinterpreters")
        program = (
            "import sys\n"
            f"sys.path[:0] = {[os.path.dirname(os.path.dirname(flagcx_p2p.__file__))]!r}\n"
            "try:\n    import flagcx_p2p\n"
            "except ImportError as error:\n    assert 'subinterpreters' in str(error) and '\\n' not in str(error), error\n"
            "else:\n    raise AssertionError('imported')\n"
        )
        other = interpreters.create()
        try:
            failed = interpreters.run_string(other, program)
        finally:
            interpreters.destroy(other)
        self.assertIsNone(failed)  # by return value from Python 3.13 on, by an exception before
        with Engine() as engine:
            self.assertGreater(engine.port, 0)


if __name__ == "__main__":
    unittest.main()
