"""A second interpreter in a process, which the package refuses: its engines and classes are the process's."""

import os
import sys
import unittest

from programs import Program

import flagcx_p2p

#: `refused()` imports the package in an interpreter of each kind that there is, and prints the line with which that fails.
REFUSED = f"""
import os
try:
    import _interpreters as interpreters
    kinds = [("isolated",), ("legacy",)]
except ImportError:
    import _xxsubinterpreters as interpreters
    kinds = [()]
program = '''
import sys
sys.path[:0] = {[os.path.dirname(os.path.dirname(flagcx_p2p.__file__))]!r}
try:
    import flagcx_p2p
except ImportError as error:
    print(error, flush=True)
else:
    print("imported", flush=True)
'''
def refused():
    for kind in kinds:
        other = interpreters.create(*kind)
        failed = interpreters.run_string(other, program)  # answers from Python 3.13 on, and raises before
        interpreters.destroy(other)
        assert failed is None, failed
"""
#: Two engines of the main interpreter.
USE = """
from flagcx_p2p import Engine
server, client = Engine(), Engine()
far, near = bytearray(64), bytearray(b"x" * 64)
server.start_server()
client.connect(server.session).write(client.register(near), server.register(far).address)
print(far == near, flush=True)
"""
#: At once, because Python 3.12.1 itself crashes at its end when a subinterpreter has imported ctypes or hashlib.
END = "client.close(); server.close(); os._exit(0)"
KINDS = 2 if sys.version_info >= (3, 13) else 1


class Subinterpreters(unittest.TestCase):
    def check(self, program: str, expected: "list[str]") -> None:
        output, errors = Program(program).end(30)
        lines = ["refused" if "subinterpreters" in line else line for line in output.splitlines()]
        self.assertEqual((lines, errors), (expected, ""), output)

    def test_they_are_refused_in_one_line(self) -> None:
        self.check(REFUSED + USE + "refused()\n" + USE + END, ["True", *["refused"] * KINDS, "True"])

    def test_one_that_comes_first_does_not_keep_the_main_interpreter_out(self) -> None:
        refused = ["refused"] * KINDS
        self.check(REFUSED + "refused()\n" + USE + "refused()\n" + END, [*refused, "True", *refused])


if __name__ == "__main__":
    unittest.main()
