"""The licences of the crates that are linked into the wheel. maturin adds this project's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from wheel.wheelfile import WheelFile

#: Where the crate of the extension is: the repository, or the source distribution.
ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "rust/python").is_dir())

#: How the files begin in which crates have their licences.
NAMES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT")


def add_licences(wheel: Path) -> None:
    """Adds them to the wheel's metadata; a second time, in the place of those that are there."""
    with WheelFile(wheel) as old:
        name = f"{old.dist_info_path}/licenses/THIRD-PARTY-LICENSES.txt"
        # The record of all files is written anew.
        kept = {info: old.read(info) for info in old.infolist() if info.filename not in (old.record_path, name)}
    wheel.unlink()
    with WheelFile(wheel, "w") as new:
        for info, content in kept.items():
            new.writestr(info, content)
        new.writestr(name, _third_party())


def _third_party() -> str:
    """One part for each crate; crates without a file of their own say what their manifest says."""
    parts = ["The flagcx_p2p extension contains these crates, each under its licence.\n"]
    for package in sorted(_linked(), key=lambda package: (package["name"], package["version"])):
        folder = Path(package["manifest_path"]).parent
        files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name.upper().startswith(NAMES)]
        parts.append(f"\n{'=' * 80}\n{package['name']} {package['version']}: {package['license']}\n")
        parts.append(f"{package['repository'] or ''}\n")
        parts.extend(f"\n--- {file.name}\n\n{file.read_text(errors='replace')}" for file in files)
    return "".join(parts)


def _linked() -> list[dict[str, str]]:
    """The crates of registries that the extension is linked with, and those that only build it."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--manifest-path"]
    told = subprocess.run(
        [*command, str(ROOT / "rust/python/Cargo.toml")], stdout=subprocess.PIPE, text=True, check=True
    )
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
    for argument in sys.argv[1:]:
        add_licences(Path(argument))
