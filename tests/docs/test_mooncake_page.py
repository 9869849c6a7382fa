"""docs/mooncake.md: every method has a row with tests that exist; its figures are those of the files that it names."""

import ast
import json
import re
import subprocess
import sys
import unittest

from pages import ROOT, blocks

PAGE = ROOT / "docs" / "mooncake.md"
TESTS = ROOT / "tests" / "python"
PACKAGE = ROOT / "python" / "flagcx_p2p" / "mooncake"


def table(text: str, heading: str) -> "list[list[str]]":
    """The rows of the table below a heading."""
    part = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[1:]]


class Page(unittest.TestCase):
    def setUp(self) -> None:
        self.text = PAGE.read_text(encoding="utf-8")

    def test_each_method_has_a_row_and_each_row_a_method(self) -> None:
        methods = set()
        for file in ("_base.py", "_engine.py"):
            for node in ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef):
                    methods |= {part.name for part in node.body if isinstance(part, ast.FunctionDef) and not part.name.startswith("_")}
        rows = [row[0].strip("`") for row in table(self.text, "Methods")]
        self.assertEqual(sorted(rows), sorted(methods))

    def test_the_tests_of_each_row_exist(self) -> None:
        for row in table(self.text, "Methods"):
            tests = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row[-1])
            self.assertEqual(row[-1], ", ".join(f"`{file}::{test}`" for file, test in tests), "a list of tests")
            self.assertTrue(tests, row)
            for file, test in tests:
                self.assertIn(f"    def {test}(self)", (TESTS / file).read_text(encoding="utf-8"), file)

    def test_the_table_of_other_results_is_what_was_recorded(self) -> None:
        recorded = json.loads((TESTS / "mooncake_recorded.json").read_text(encoding="utf-8"))
        rows = table(self.text, "Other results")
        self.assertGreater(len(rows), 10)
        for row in rows:
            self.assertEqual(len(row), 4, row)
            self.assertEqual(json.loads(row[1].strip("`")), recorded["results"][row[0]], row[0])
        self.assertIn(f"makes {len(recorded['results'])} calls", self.text)
        self.assertIn(recorded["package"].split()[1], self.text)

    def test_programs_of_traces_are_named(self) -> None:
        for trace in sorted((TESTS / "traces").glob("*.json")):
            self.assertIn(trace.name, self.text)
            for source in json.loads(trace.read_text(encoding="utf-8"))["sources"]:
                self.assertRegex(source["commit"], "^[0-9a-f]{40}$")

    def test_its_block_runs(self) -> None:
        run = [block for block in blocks(PAGE) if (block.language, block.mark) == ("python", "run")]
        self.assertEqual(len(run), 1)
        program = run[0].text + "from mooncake.engine import TransferEngine\nprint(TransferEngine.__module__)\n"
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        self.assertEqual(ended.stdout, "flagcx_p2p.mooncake._engine\n", ended.stderr)


if __name__ == "__main__":
    unittest.main()
