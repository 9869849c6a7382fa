"""The programs of the guide, each as receiver of each; and the lines of the README."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
from typing import Dict, List

from pages import README, ROOT, blocks

ENVIRONMENT = dict(os.environ, FLAGCX_P2P_FABRIC="software", FLAGCX_P2P_BIND="127.0.0.1")
PYTHON_PROGRAM = str(ROOT / "python" / "examples" / "hello.py")
#: The command of each, by the name that it sends. The paths come from docs.cmake.
PROGRAMS: Dict[str, List[str]] = {
    "C++": [os.environ["HELLO_CPP"]],
    "C": [os.environ["HELLO_C"]],
    "Rust": [os.environ["HELLO_RUST"]],
    "Python": [sys.executable, PYTHON_PROGRAM],
}


def run(*command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = dict(ENVIRONMENT, **variables)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


class Programs(unittest.TestCase):
    def test_each_sends_to_each(self) -> None:
        for receiver in PROGRAMS:
            for sender in PROGRAMS:
                with self.subTest(receiver=receiver, sender=sender):
                    self.send(receiver, sender)

    def send(self, receiver: str, sender: str) -> None:
        command = [*PROGRAMS[receiver], "receive"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=ENVIRONMENT, stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdout is not None
            port, address = process.stdout.readline().removeprefix("port ").strip().split(", address ")
            sent = run(*PROGRAMS[sender], "send", f"127.0.0.1:{port}", address)
            self.assertEqual(sent.returncode, 0, sent.stderr)
            received, _ = process.communicate("\n", timeout=60)
        self.assertEqual((process.returncode, received), (0, f"received: hello from {sender}\n"))

    def test_a_wrong_call_is_told_how_to_call(self) -> None:
        for name, command in PROGRAMS.items():
            for arguments in ([], ["recieve"], ["send", "127.0.0.1:1"], ["receive", "127.0.0.1:1"]):
                with self.subTest(name=name, arguments=arguments):
                    ended = run(*command, *arguments)
                    self.assertEqual(ended.returncode, 2, ended)
                    self.assertIn("usage:", ended.stderr)

    def test_what_cannot_be_done_says_why(self) -> None:
        for name, command in PROGRAMS.items():
            for session, reason in [("127.0.0.1", "expected host:port"), ("127.0.0.1:1", "refused")]:
                with self.subTest(name=name, session=session):
                    ended = run(*command, "send", session, "0x1000", FLAGCX_P2P_CONNECT_TIMEOUT_MS="200")
                    self.assertEqual(ended.returncode, 1, ended)
                    self.assertIn(reason, ended.stderr)

    def test_a_wrong_key_is_named_as_such(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            keys = {name: pathlib.Path(folder, name) for name in ("right", "wrong")}
            for name, key in keys.items():
                key.write_text(f"a secret of some length: {name}")
                key.chmod(0o600)
            environment = dict(ENVIRONMENT, FLAGCX_P2P_AUTH_KEY_FILE=str(keys["right"]))
            command = [*PROGRAMS["C"], "receive"]
            pipe = subprocess.PIPE
            with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as receiver:
                assert receiver.stdout is not None
                port, address = receiver.stdout.readline().removeprefix("port ").strip().split(", address ")
                for name, program in PROGRAMS.items():
                    send = [*program, "send", f"127.0.0.1:{port}", address]
                    with self.subTest(name=name):
                        without = run(*send)
                        self.assertIn("the peer requires a key", without.stderr)
                        wrong = run(*send, FLAGCX_P2P_AUTH_KEY_FILE=str(keys["wrong"]))
                        self.assertIn("its pre-shared key differs from ours", wrong.stderr)
                        right = run(*send, FLAGCX_P2P_AUTH_KEY_FILE=str(keys["right"]))
                        codes = (without.returncode, wrong.returncode, right.returncode)
                        self.assertEqual(codes, (1, 1, 0), right.stderr)
                receiver.communicate("\n", timeout=60)


class Lines(unittest.TestCase):
    """Those of the README. Its Rust is a test of the documentation: cargo.doc."""

    def test_languages(self) -> None:
        marks = {block.language: block.mark for block in blocks(README) if block.language != "sh"}
        self.assertEqual(marks, {"rust": "run", "cpp": "run", "python": "run"})

    def test_python(self) -> None:
        ended = run(sys.executable, "-c", self.block("python"))
        self.assertEqual(ended.returncode, 0, ended.stderr)

    def test_cpp(self) -> None:
        prefix = pathlib.Path(os.environ["PREFIX"])
        with tempfile.TemporaryDirectory() as folder:
            source, program = pathlib.Path(folder, "readme.cc"), pathlib.Path(folder, "readme")
            source.write_text(
                '#include "flagcx_p2p.h"\n#include <string>\nint main() {\n'
                + self.block("cpp")
                + "flagcxP2pEngineDestroy(client);\nflagcxP2pEngineDestroy(server);\n"
                + 'return result == 0 && std::string(target) == "hello" ? 0 : 1;\n}\n'
            )
            options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{prefix}/include", f"-L{prefix}/lib"]
            libraries = ["-lflagcx_p2p", f"-Wl,-rpath,{prefix}/lib"]
            ended = run(os.environ["CXX"], *options, str(source), "-o", str(program), *libraries)
            self.assertEqual(ended.returncode, 0, ended.stderr)
            ended = run(str(program))
            self.assertEqual(ended.returncode, 0, ended.stderr)

    def block(self, language: str) -> str:
        return next(block.text for block in blocks(README) if block.language == language)


if __name__ == "__main__":
    unittest.main()
