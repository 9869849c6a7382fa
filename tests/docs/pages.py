"""The pages of the documentation, and the code blocks in them.

A comment on the line before a block selects what the tests do with it:

    <!-- run -->                 it is run
    <!-- not run: REASON -->     it is not run, for example because it installs packages
    <!-- path/of/a/file -->      it is that file, word for word; `UPDATE_DOCS=1` writes the file into the page
"""

import pathlib
import re
from typing import List, NamedTuple, Optional

ROOT = pathlib.Path(__file__).parent.parent.parent
README = ROOT / "README.md"
GLOSSARY = ROOT / "docs" / "glossary.md"
GUIDE = ROOT / "docs" / "user-guide.md"
#: Pages of which every block of commands says whether it is run.
MARKED = [README, GUIDE, *(ROOT / "docs" / f"{name}.md" for name in ("rdma-setup", "containers", "logs", "mooncake", "python", "troubleshooting", "tuning"))]
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
#: The sources of the engine.
CORE = ROOT / "rust" / "core" / "src"
#: Those of the directory of names.
DIRECTORY = ROOT / "rust" / "directory" / "src"
#: Blocks of these languages need a mark.
LANGUAGES = ("sh", "rust", "cpp", "c", "python")


class Block(NamedTuple):
    """A code block."""

    page: pathlib.Path
    line: int
    language: str
    mark: Optional[str]
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: pathlib.Path) -> List[Block]:
    """All code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    pattern = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match[2], match[1], match[3])
        for match in pattern.finditer(text)
    ]


def commands(block: Block) -> List[str]:
    """The lines of a shell block without their comments."""
    lines = (line.split(" #")[0].strip() for line in block.text.splitlines())
    return [line for line in lines if line]


class Term(NamedTuple):
    """A row of the glossary."""

    word: str
    meaning: str
    type: str
    source: str


def terms(text: Optional[str] = None) -> List[Term]:
    """The rows of the glossary, or of a part of it."""
    rows = re.findall(r"^\|(.*)\|$", text or GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)
    cells = [[cell.strip() for cell in row.split("|")] for row in rows if not re.match(r" Term |---", row)]
    wrong = [row for row in cells if len(row) != 4]
    assert not wrong, f"a row of the glossary has four cells: {wrong}"
    return [Term(*row) for row in cells]
