"""A build changes nothing in the source tree: neither compiled files nor Python's bytecode stay in it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def target_folder() -> Iterator[None]:
    """While it is open, cargo compiles in a temporary folder, or in the one that the user has named."""
    if any(os.environ.get(name) for name in ("CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR")):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="flagcx-p2p-build-") as folder:
        os.environ["CARGO_TARGET_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["CARGO_TARGET_DIR"]


def remove_bytecode(*sources: str) -> None:
    """Of modules that were imported already: Python writes it before the module can ask it not to."""
    if sys.dont_write_bytecode:
        return
    sys.dont_write_bytecode = True
    for source in sources:
        bytecode = Path(importlib.util.cache_from_source(source))
        bytecode.unlink(missing_ok=True)
        # Others may have files there.
        with contextlib.suppress(OSError):
            bytecode.parent.rmdir()
