#!/usr/bin/env python3
"""Publishes nothing: `cargo publish --dry-run` of every crate that goes to crates.io, in the order in which they have to go.

The order is that of docs/packaging.md, and each crate comes after those of ours that it needs. Without the network, and where crates.io does
not answer, the crates are packed only, and that is said."""

import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Dict, List, Set

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


#: For one call of cargo: it waits for the index of crates.io, and packs.
LIMIT_S = 600
#: What cargo writes where the registry cannot be reached, in lower case.
OUT_OF_REACH = re.compile(
    r"spurious network error|could ?n.t resolve|could ?n.t connect|failed to connect|connection (refused|reset|timed out)|network is unreachable"
    r"|timeout was reached|operation timed out|ssl connect error|failed to download|download of [^ ]+ failed|unable to update registry"
    r"|failed to get successful http response"
)


def needs() -> Dict[str, Set[str]]:
    """Of each crate that is published, those of ours that it needs."""
    told = cargo("metadata", "--no-deps", "--offline", "--format-version", "1")
    if told.returncode != 0:
        sys.exit(f"`cargo metadata` ended with {told.returncode}: {told.stderr.strip()}")
    published = {crate["name"]: crate for crate in json.loads(told.stdout)["packages"] if crate["publish"] is None}
    return {
        name: {need["name"] for need in crate["dependencies"] if need["name"] in published and need["kind"] != "dev"}
        for name, crate in published.items()
    }


def order() -> List[str]:
    """As the page says: the list with numbers under its heading."""
    page = (ROOT / "docs" / "packaging.md").read_text(encoding="utf-8")
    section = re.search(r"^## Crates\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert section is not None
    return re.findall(r"^\d+\. `([\w-]+)`", section[1], re.MULTILINE)


def cargo(*arguments: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(["cargo", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    except FileNotFoundError:
        sys.exit("cargo is not installed, or not on the PATH: see `./x setup`")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(arguments, 1, "", f"operation timed out: no end within {LIMIT_S} s")


def pack_or_publish(crates: List[str]) -> int:
    """The status of cargo, of which what went wrong is printed."""
    # One call: a crate that crates.io has not got yet is found where cargo has packed it. Built they are by the tests.
    options = ["--no-verify", "--allow-dirty", "--locked", "--quiet"]
    for name in crates:
        options += ["-p", name]
    if os.environ.get("CARGO_NET_OFFLINE") != "true":
        print("cargo publish --dry-run " + " ".join(options), flush=True)
        tried = cargo("publish", "--dry-run", *options)
        sys.stderr.write(tried.stderr)
        if tried.returncode == 0 or not OUT_OF_REACH.search(tried.stderr.lower()):
            return tried.returncode
        print(
            "not run: `cargo publish --dry-run`, because crates.io does not answer (see above): check the network and CARGO_HTTP_PROXY, or "
            "set CARGO_NET_OFFLINE=true. The crates are packed only, which does not compare them with what crates.io has",
            flush=True,
        )
    print("cargo package " + " ".join(options), flush=True)
    packed = cargo("package", "--offline", *options)
    sys.stderr.write(packed.stderr)
    return packed.returncode


def main() -> int:
    wanted, told = needs(), order()
    if sorted(wanted) != sorted(told):
        print(f"docs/packaging.md lists {told}, published are {sorted(wanted)}")
        return 1
    for at, name in enumerate(told):
        late = wanted[name] - set(told[:at])
        if late:
            print(f"docs/packaging.md lists {name} before {sorted(late)}, which it needs")
            return 1
    return pack_or_publish(told)


if __name__ == "__main__":
    sys.exit(main())
