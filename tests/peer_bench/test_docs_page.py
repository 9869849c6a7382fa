"""The section of the results in a page, and the plot beside it."""

import json
import os
import subprocess
import sys
import tempfile
import unittest

import docs_page
from results import Results
from rows import OPERATIONS, USUAL
from systems import CROSS_MEMORY, SHARED, TCP

HERE = os.path.dirname(os.path.abspath(__file__))
HOST = {"cpu": "a processor", "cores": 2, "memory_gib": 4, "system": "Linux", "kernel": "1", "load_before": 0,
        "load_after": 1}
PAGE = "# Page\n\n## Results\n\n### 2000-01-01: comparison with other engines\n\nold\n\n{rest}"


def section(results=None):
    return docs_page.section("command", results or Results([]), HOST, "2026-01-02 03:04 UTC", "1 rounds", "| table |")


class Section(unittest.TestCase):
    def page(self, text):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, "benchmarks.md")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def test_the_section_is_replaced_and_nothing_else(self):
        for rest in ["### 2000-01-01: another\n\nkept\n", "## Next\n\nkept\n"]:
            path = self.page(PAGE.format(rest=rest))
            docs_page.replace(path, section())
            with open(path, encoding="utf-8") as file:
                text = file.read()
            self.assertEqual(text, f"# Page\n\n## Results\n\n{section()}\n\n{rest}")
            self.assertIsNone(docs_page.reason_against(path))

    def test_a_page_without_the_section_is_refused(self):
        self.assertIn("has 0 sections", docs_page.reason_against(self.page("# Page\n")))
        self.assertIn("cannot read", docs_page.reason_against("/nowhere/page.md"))

    def test_it_says_what_was_not_measured_and_where(self):
        results = Results([])
        results.not_measured["peer, tcp"] = "not there"
        text = section(results)
        self.assertIn("Not measured: peer, tcp: not there", text)
        self.assertTrue(text.startswith("### 2026-01-02: comparison with other engines\n\n"
                                        "`command` at 03:04 UTC: a processor"))

    def test_the_page_of_this_repository_has_the_section(self):
        page = os.path.join(HERE, "..", "..", "docs", "benchmarks.md")
        self.assertIsNone(docs_page.reason_against(page))


class Plot(unittest.TestCase):
    def draw(self, folder):
        entry = {"gbps": 2.0, "sets": 16, "burners": 0}
        rows = [dict(entry, system=system, path=path, op=row.op, size=row.size, batch=row.batch)
                for system in ["ours", "ucx"] for path in [CROSS_MEMORY, TCP, SHARED] for row in USUAL]
        limits = [dict(row, system="limit", gbps=3.0) for row in rows if row["system"] == "ours"]
        source, out = os.path.join(folder, "a.json"), os.path.join(folder, "a.svg")
        with open(source, "w", encoding="utf-8") as file:
            json.dump({"host": HOST, "date": "today", "rows": rows, "limits": limits}, file)
        python = os.path.join(HERE, "..", "..", "target", "peers", "plot", "bin", "python")
        done = subprocess.run([python if os.path.exists(python) else sys.executable, os.path.join(HERE, "plot.py"),
                               source, out], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if "matplotlib is not installed" in done.stdout:
            print("not run: matplotlib is not installed; ./x bench peers installs it")
            self.skipTest("matplotlib is not installed")
        self.assertEqual(done.returncode, 0, done.stdout)
        with open(out, encoding="utf-8") as file:
            return file.read()

    def test_a_panel_for_each_path_and_operation_with_the_limit(self):
        with tempfile.TemporaryDirectory() as folder:
            text = self.draw(folder)
            for title in ["memory of the programs", "TCP", "memory that both map"]:
                for operation in OPERATIONS:
                    self.assertIn(f"{title}: {operation}", text)
            for name in ["best limit", "ours", "ucx"]:
                self.assertEqual(text.count(f">{name}<"), 1)
            self.assertLess(len(text), 200_000)
            self.assertNotRegex(text, r"[ \t]\n")
            # Drawn again it is the same file.
            self.assertEqual(text, self.draw(folder))


if __name__ == "__main__":
    unittest.main()
