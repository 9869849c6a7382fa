"""The commands of the pages that are marked to be run, and typing errors in those of `./x`.

Where two machines stand in the guide there is this one. What is not run is listed with its reason.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest
from typing import Dict

from pages import MARKED, ROOT, blocks, commands

TOOL = pathlib.Path(os.environ["TOOL"])


class Commands(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        (self.folder / "files").mkdir()
        (self.folder / "model.bin").write_bytes(os.urandom(300_000))
        path = f"{TOOL.parent}:{os.environ['PATH']}"
        self.environment: Dict[str, str] = dict(os.environ, FLAGCX_P2P_FABRIC="software", PATH=path)

    def test_those_of_the_pages(self) -> None:
        ran = 0
        print()  # ends unittest's line: ./x test looks for "not run" where a line begins
        for page in MARKED:
            left_out = []
            for block in blocks(page):
                if block.language != "sh":
                    continue
                if block.mark != "run":
                    left_out.append(f"{block.line} ({(block.mark or '').removeprefix('not run: ')})")
                    continue
                for command in commands(block):
                    self.run_one(command)
                    ran += 1
            if left_out:
                print(f"not run: {page.name}: commands at line {', '.join(left_out)}")
        self.assertGreater(ran, 5)
        copy = (self.folder / "copy.bin").read_bytes()
        self.assertEqual(copy, (self.folder / "model.bin").read_bytes())

    def run_one(self, command: str) -> None:
        if command.startswith("flagcx-p2p serve"):
            self.serve(command.replace("192.0.2.7", "127.0.0.1") + " --port 0")
            return
        command = command.replace("192.0.2.7:7733", getattr(self, "address", "no server"))
        ended = subprocess.run(
            command, shell=True, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60
        )
        self.assertEqual(ended.returncode, 0, f"{command}: {ended.stdout}{ended.stderr}")

    def serve(self, command: str) -> None:
        server = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        assert server.stdout is not None
        self.addCleanup(server.stdout.close)
        words = server.stdout.readline().split()
        self.assertEqual(words[:2], ["listening", "on"], words)
        self.address = words[2]

    def test_typing_errors_of_x(self) -> None:
        for arguments in ["dmeo", "test qiuck", "proofs qiuck", "bench overhed", "check quick", "rdma ls", "clean all"]:
            ended = subprocess.run([ROOT / "x", *arguments.split()], capture_output=True, text=True, timeout=60)
            self.assertEqual(ended.returncode, 2, f"./x {arguments}: {ended.stderr}")
            first = ended.stderr.splitlines()[0]
            self.assertTrue(first.startswith("x: ") and arguments.split()[0] in first, first)
            self.assertIn("./x demo", ended.stderr, "the help follows")

    def test_a_mistyped_option_of_cmake(self) -> None:
        command = ["cmake", "-S", ROOT, "-B", self.folder / "build", "-DFLAGCX_P2P_BUILD_TESTS=OFF", "-DFLAGCX_P2P_VERB=OFF"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertNotEqual(ended.returncode, 0)
        text = " ".join(ended.stderr.split())
        self.assertIn("no such option: FLAGCX_P2P_VERB. There are:", text)
        self.assertIn("FLAGCX_P2P_VERBS", text)

    def test_the_tool_is_there(self) -> None:
        self.assertIsNotNone(shutil.which("flagcx-p2p", path=self.environment["PATH"]))


if __name__ == "__main__":
    unittest.main()
