"""docs/python.md: its blocks run, what it names exists, and each row of its table has a test."""

import ast
import asyncio
import os
import re
import unittest
from typing import Any

from pages import ROOT, blocks

PAGE = ROOT / "docs" / "python.md"
TESTS = ROOT / "tests" / "python"
#: The variables of the page, and the class of each.
VARIABLES = {"engine": "Engine", "region": "Region", "connection": "Connection", "transfer": "Transfer", "prepared": "Prepared"}


class Names(unittest.TestCase):
    def setUp(self) -> None:
        self.text = PAGE.read_text(encoding="utf-8")

    def test_methods_exist(self) -> None:
        stub = ast.parse((ROOT / "python" / "flagcx_p2p" / "_native.pyi").read_text(encoding="utf-8"))
        methods = {
            node.name: {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
            for node in stub.body
            if isinstance(node, ast.ClassDef)
        }
        named = re.findall(rf"\b({'|'.join(VARIABLES)})\.([a-z]\w+)", self.text)
        self.assertGreater(len(named), 30)
        for variable, method in named:
            self.assertIn(method, methods[VARIABLES[variable]], f"{variable}.{method}")

    def test_each_row_of_the_table_has_tests_and_they_exist(self) -> None:
        table = self.text.split("## Beside NIXL and Mooncake\n")[1].split("\n## ")[0]
        rows = [row for row in table.splitlines() if row.startswith("| ") and not row.startswith("| What ")]
        self.assertGreater(len(rows), 15)
        for row in rows:
            *_, cell = row.strip("| ").split(" | ")
            tests = re.findall(r"`(test_\w+\.py)::(test_\w+)`", cell)
            self.assertEqual(cell, ", ".join(f"`{file}::{test}`" for file, test in tests), "a list of tests")
            self.assertTrue(tests, row)
            for file, test in tests:
                self.assertIn(f"    def {test}(self)", (TESTS / file).read_text(encoding="utf-8"), file)


class Blocks(unittest.TestCase):
    """The Python blocks run one after the other, in a process with two engines."""

    def test_they_run(self) -> None:
        os.environ.update({"FLAGCX_P2P_FABRIC": "software", "FLAGCX_P2P_BIND": "127.0.0.1"})
        try:
            import flagcx_p2p
            import numpy
        except ImportError as error:
            print(f"\nnot run: the blocks of python.md: {error}")
            self.skipTest(str(error))
        size = 4096
        source, target = bytearray(os.urandom(13 * size)), bytearray(13 * size)
        with flagcx_p2p.Engine() as engine, flagcx_p2p.Engine() as peer:
            peer.start_server()
            session = f"127.0.0.1:{peer.port}"
            names = {
                **{"asyncio": asyncio, "numpy": numpy, "engine": engine, "session": session, "SIZE": size},
                **{"region": engine.register(source), "there": peer.register(target).address},
                **{"connection": engine.connect(session), "parts": [(0, size), (size, 2 * size)]},
            }
            run = [block for block in blocks(PAGE) if (block.language, block.mark) == ("python", "run")]
            for block in run:
                self.run_one(block.text, names)
        self.assertEqual(len(run), 2)
        moved = {number for number in range(13) if target[number * size :][:size] == source[number * size :][:size]}
        self.assertEqual(moved, {0, 1, 3, 7, 12}, "those that the page's lines name")

    def run_one(self, text: str, names: "dict[str, Any]") -> None:
        code = compile(text, PAGE.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

        async def run() -> None:
            ended = eval(code, names)
            if ended is not None:
                await ended

        asyncio.run(run())


if __name__ == "__main__":
    unittest.main()
