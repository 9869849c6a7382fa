#!/usr/bin/env python3
"""Publishes nothing: `cargo publish --dry-run` of every crate that goes to crates.io, in the order in which they have to go.

The order is that of docs/packaging.md, and each crate comes after those of ours that it needs. Without the network the crates are
packed only."""

import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Dict, List, Set

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def needs() -> Dict[str, Set[str]]:
    """Of each crate that is published, those of ours that it needs."""
    told = subprocess.run(
        ["cargo", "metadata", "--no-deps", "--offline", "--format-version", "1"], cwd=ROOT, capture_output=True, text=True, check=True
    )
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
    offline = os.environ.get("CARGO_NET_OFFLINE") == "true"
    command = ["cargo", "package"] if offline else ["cargo", "publish", "--dry-run"]
    # One call: a crate that crates.io has not got yet is found where cargo has packed it. Built they are by the tests.
    command += ["--no-verify", "--allow-dirty", "--locked", "--quiet"]
    for name in told:
        command += ["-p", name]
    print(" ".join(command))
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
