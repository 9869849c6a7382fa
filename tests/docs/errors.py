"""The error texts of the engine, from its source: of each `#[error("...")]` the text with `...` for what is filled in."""

import pathlib
import re
from typing import Iterator, List, NamedTuple

from pages import CORE, ROOT

#: Of errors that reach users only inside another one of these, or from tests' settings: rows for the enum, not for each.
PARTS = {"WireError", "FaultPlanError", "NoLane", "CpuSetError"}


class ErrorText(NamedTuple):
    """The text of an error type, or of one of its variants."""

    file: pathlib.Path
    type: str
    variant: str
    text: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(CORE)}: {self.type}::{self.variant}: {self.text}"


def error_texts() -> Iterator[ErrorText]:
    """Those of rust/core/src that have words of their own."""
    for file in sorted(CORE.rglob("*.rs")):
        source = file.read_text(encoding="utf-8")
        for found in re.finditer(r"thiserror::Error\)\]\n((?:.|\n)*?)^\}$", source, re.MULTILINE):
            kind = re.search(r"\b(?:struct|enum) (\w+)", found[1])
            assert kind is not None, f"{file}: {found[1][:80]}"
            for attribute in re.finditer(r"#\[error\(((?:.|\n)*?)\)\]\n((?:\s*(?:#|//)[^\n]*\n)*)\s*(?:pub(?:\([^)]*\))? )?(?:struct )?(\w+)", found[1]):
                text = template(attribute[1])
                if re.search(r"[a-z]{2}", text):
                    yield ErrorText(file, kind[1], attribute[3], text)


def template(arguments: str) -> str:
    """The format string of an attribute's arguments; empty for `transparent`."""
    literal = re.match(r'\s*"((?:[^"\\]|\\.|\\\n)*)"', arguments)
    return placeholders(literal[1]) if literal else ""


def placeholders(literal: str) -> str:
    """A string literal of Rust as pages quote it."""
    joined = re.sub(r"\\\n\s*", "", literal)
    return re.sub(r"\{[^{}]*\}", "...", joined).replace('\\"', '"')


def strings() -> str:
    """All string literals of the crates, as pages quote them."""
    sources: List[pathlib.Path] = [
        file for crate in ("rust/core/src", "rust/directory/src", "bridge/src", "rust/cli/src") for file in (ROOT / crate).rglob("*.rs")
    ]
    literals = (
        placeholders(literal)
        for file in sources
        for literal in re.findall(r'"((?:[^"\\]|\\.|\\\n)*)"', file.read_text(encoding="utf-8"))
    )
    return "\n".join(literals)
