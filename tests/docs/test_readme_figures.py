"""The figures of the README are those of the benchmarks: each row of its comparison is a row there."""

import re
import unittest

from pages import README, ROOT

#: How the README calls the table, and the line before the table.
TABLES = {
    "one host": "Two processes of one host, memory of the programs:",
    "TCP": "TCP on 127.0.0.1:",
    "memory both map": "Memory that both processes map, which the engine allocates:",
}
OPERATIONS = {"write": "put", "read": "get"}


class Figures(unittest.TestCase):
    def test_each_row_is_one_of_the_benchmarks(self) -> None:
        page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| ([\w ]+), (write|read) ([^|]+) \| ([\d.]+) \S+ \| ([\d.]+) [^|]+ \| \**([\d.]+)\** \|$", comparison(), re.M)
        self.assertGreater(len(rows), 8)
        for table, operation, size, ours, peer, ratio in rows:
            row = f"| {OPERATIONS[operation]} {size} |"
            lines = page.split(f"\n{TABLES[table]}\n", 1)[1].split("\n\n")[0].splitlines()
            found = [line for line in lines if line.startswith(row)]
            self.assertEqual(len(found), 1, row)
            figures = [first_number(cell) for cell in found[0].split("|")[2:-1]]
            self.assertTrue(is_near(figures[0], float(ours)), f"{row} {ours}: {found}")
            self.assertTrue(any(is_near(figure, float(peer)) for figure in figures[1:]), f"{row} {peer}: {found}")
            self.assertTrue(any(figure == float(ratio) for figure in figures[1:]), f"{row} {ratio}: {found}")

    def test_the_plots_are_those_of_the_benchmarks(self) -> None:
        plots = re.findall(r"\]\(docs/([\w-]+\.svg)\)", comparison())
        self.assertEqual(plots, ["benchmarks-peers.svg", "bench.svg"])


def comparison() -> str:
    text = README.read_text(encoding="utf-8")
    return text.split("## Compared with others")[1].split("\n## ")[0]


def first_number(cell: str) -> float:
    found = re.search(r"[\d.]+", cell)
    return float(found.group()) if found else -1.0


def is_near(there: float, here: float) -> bool:
    """Rounded to two digits or more."""
    return abs(there - here) <= 0.02 * there


if __name__ == "__main__":
    unittest.main()
