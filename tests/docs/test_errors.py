"""docs/troubleshooting.md has every error text that users meet, and none that does not exist."""

import re
import unittest
from typing import List

from errors import PARTS, error_texts, strings
from pages import CORE, ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"


class Errors(unittest.TestCase):
    def test_each_quoted_text_is_one_of_the_source(self) -> None:
        known = strings()
        header = (ROOT / "cpp" / "include" / "flagcx_p2p_ext.h").read_text(encoding="utf-8")
        quoted = [text for row in rows() for text in quotes(row)]
        self.assertGreater(len(quoted), 100)
        for text in quoted:
            if re.fullmatch(r"FLAGCX_P2P_\w+", text):
                self.assertTrue(re.search(rf"\b{text}\b", header), f"{text} is not in flagcx_p2p_ext.h")
            else:
                self.assertTrue(all(part in known for part in fragments(text)), f"no text of the source has: {text}")

    def test_each_error_has_a_row(self) -> None:
        quoted = [text for row in rows() for text in quotes(row)]
        errors = list(error_texts())
        self.assertGreater(len(errors), 80)
        missing = [str(error) for error in errors if error.type not in PARTS and not any(fits(text, error.text) for text in quoted)]
        self.assertEqual(missing, [])

    def test_each_completion_status_has_a_row(self) -> None:
        source = (CORE / "fabric" / "completion.rs").read_text(encoding="utf-8")
        display = re.search(r"impl fmt::Display for CompletionStatus (?:.|\n)*?^\}", source, re.MULTILINE)
        assert display is not None
        statuses = re.findall(r'Self::(\w+) => "([^"]+)"', display[0])
        self.assertGreater(len(statuses), 10)
        quoted = [text for row in rows() for text in quotes(row)]
        for name, text in statuses:
            if name != "Success":
                self.assertTrue(any(quote in text for quote in quoted), f"CompletionStatus::{name}: {text}")

    def test_each_code_of_the_extension_header_is_explained(self) -> None:
        header = (ROOT / "cpp" / "include" / "flagcx_p2p_ext.h").read_text(encoding="utf-8")
        codes = re.findall(r"\b(FLAGCX_P2P_XFER_\w+|FLAGCX_P2P_WOULD_BLOCK)\b *(?:=|1\b)", header)
        self.assertGreaterEqual(len(codes), 7)
        page = PAGE.read_text(encoding="utf-8")
        self.assertEqual([code for code in codes if f"`{code}`" not in page], [])

    def test_errors_of_the_public_interface_are_among_them(self) -> None:
        """What `error_texts` does not read would have no row, and nothing would say so."""
        listed = (ROOT / "rust" / "core" / "public-api.txt").read_text(encoding="utf-8").split()
        public = {name for name in listed if name.endswith("Error") or name in ("Forked", "Failure", "Inaccessible")}
        self.assertGreater(len(public), 10)
        found = {error.type for error in error_texts()} | {"ConfigError"}  # its text is that of its variable
        self.assertEqual(sorted(public - found), [])


def rows() -> List[str]:
    """The first cells of all tables that have a cause."""
    tables = re.findall(r"^\| Text \|.*\n\|[-| ]*\n((?:\|.*\n)+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.split(" | ")[0] for table in tables for line in table.splitlines()]


def quotes(cell: str) -> List[str]:
    return re.findall(r"`([^`]+)`", cell)


def fragments(text: str) -> List[str]:
    return [part for part in text.split("...") if re.search(r"\w", part)]


def fits(quote: str, text: str) -> bool:
    """Whether a quote shows a text: all of it, or enough words of it in their order."""
    at = 0
    for part in fragments(quote):
        at = text.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return quote == text or sum(map(len, fragments(quote))) >= 10


if __name__ == "__main__":
    unittest.main()
