"""The licences of the crates that a binary contains.

``python3 third_party.py WHAT MANIFEST...`` prints them, for packages of the library and the tool.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

#: How the files begin in which crates have their licences.
NAMES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT")


def licences(what: str, manifests: list[Path]) -> str:
    """One part for each crate that the crates of these manifests are linked with; crates without a file of their own say what their
    manifest says."""
    parts = [f"{what} contains these crates, each under its licence.\n"]
    found = {package["id"]: package for manifest in manifests for package in _linked(manifest)}
    for package in sorted(found.values(), key=lambda package: (package["name"], package["version"])):
        folder = Path(package["manifest_path"]).parent
        files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name.upper().startswith(NAMES)]
        parts.append(f"\n{'=' * 80}\n{package['name']} {package['version']}: {package['license']}\n")
        parts.append(f"{package['repository'] or ''}\n")
        parts.extend(f"\n--- {file.name}\n\n{file.read_text(errors='replace')}" for file in files)
    return "".join(parts)


def _linked(manifest: Path) -> list[dict[str, str]]:
    """The crates of registries that this crate is linked with, and those that only build it."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--manifest-path"]
    told = subprocess.run([*command, str(manifest)], stdout=subprocess.PIPE, text=True, check=True)
    metadata = json.loads(told.stdout)
    by_id = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    seen, waiting = set(), [metadata["resolve"]["root"]]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        waiting += [
            dependency["pkg"]
            for dependency in nodes[node]["deps"]
            if any(kind["kind"] is None and "windows" not in (kind["target"] or "") for kind in dependency["dep_kinds"])
        ]
    return [by_id[node] for node in seen if by_id[node]["source"]]


if __name__ == "__main__":
    print(licences(sys.argv[1], [Path(argument) for argument in sys.argv[2:]]), end="")
