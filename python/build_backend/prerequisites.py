"""What the build of the wheel needs, looked for before it begins."""

from __future__ import annotations

import ctypes.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: `rust-version` of the workspace.
RUST = (1, 88)


def check(settings: dict[str, Any] | None) -> None:
    """Ends the build with one text that names all that is missing, and how to get it."""
    missing = list(_missing(_is_without_verbs(settings)))
    if missing:
        lines = "\n".join(f"  - {line}" for line in missing)
        sys.exit(f"flagcx-p2p cannot be built, because something is missing:\n{lines}")


def _missing(without_verbs: bool) -> Iterator[str]:
    yield from _missing_rust()
    if without_verbs:
        return
    hint = "or build without RDMA devices: --config-settings=build-args='--no-default-features --features metrics-endpoint'"
    asks_pkg_config = shutil.which(_pkg_config()) is not None
    if not asks_pkg_config:
        yield f"pkg-config, which finds libibverbs and librdmacm: apt install pkg-config (Fedora: pkgconf-pkg-config), {hint}"
    if not _has_header("infiniband/verbs.h") or (asks_pkg_config and not _is_known("libibverbs >= 1.8.28", "librdmacm >= 1.2.28")):
        yield (
            "the headers of libibverbs and librdmacm, and what pkg-config knows of both: "
            f"apt install libibverbs-dev librdmacm-dev (Fedora: rdma-core-devel), {hint}"
        )
    if not _has_libclang():
        yield f"libclang, which reads these headers: apt install libclang-dev (Fedora: clang-devel), {hint}"


def _missing_rust() -> Iterator[str]:
    if shutil.which("cc") is None and "CC" not in os.environ:
        yield "a C compiler and linker: apt install gcc"
    if shutil.which("cargo") is None:
        yield f"Rust {RUST[0]}.{RUST[1]} or later: https://rustup.rs"
        return
    told = subprocess.run(["cargo", "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"cargo (\d+)\.(\d+)", told.stdout)
    if found is None:
        yield f"a Rust toolchain that works: `cargo --version` says: {(told.stderr or told.stdout).strip()}"
    elif (int(found[1]), int(found[2])) < RUST:
        yield f"Rust {RUST[0]}.{RUST[1]} or later, found {found[1]}.{found[2]}: rustup update"


def _is_without_verbs(settings: dict[str, Any] | None) -> bool:
    """Whether the build leaves the provider for RDMA devices out, as the settings of maturin say."""
    given = (settings or {}).get("build-args", os.environ.get("MATURIN_PEP517_ARGS", ""))
    words = " ".join(given) if isinstance(given, list) else str(given)
    return "--no-default-features" in words and not re.search(r"\bverbs\b", words)


def _pkg_config() -> str:
    return os.environ.get("PKG_CONFIG", "pkg-config")


def _is_known(*libraries: str) -> bool:
    """As the crate rdma-sys asks for them, which ends with a panic when one is not there."""
    return subprocess.run([_pkg_config(), "--exists", *libraries], capture_output=True, check=False).returncode == 0


def _has_header(name: str) -> bool:
    compiler = os.environ.get("CC", "cc").split()
    command = [*compiler, "-fsyntax-only", "-x", "c", "-"]
    try:
        done = subprocess.run(command, input=f"#include <{name}>\n", capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _has_libclang() -> bool:
    named = os.environ.get("LIBCLANG_PATH")
    folders = [Path(named)] if named else []
    folders += Path("/usr/lib").glob("llvm-*/lib")
    folders += [Path("/usr/lib64"), Path("/usr/lib"), *Path("/usr/lib").glob("*-linux-gnu")]
    if any(next(folder.glob("libclang*.so*"), None) for folder in folders if folder.is_dir()):
        return True
    return ctypes.util.find_library("clang") is not None
