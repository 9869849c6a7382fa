"""The licences of what is inside the wheel: this project's, and those of the crates that are linked into it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from wheel.wheelfile import WheelFile

#: Where the crate of the extension is: the repository, or the source distribution.
ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "rust/python").is_dir())

#: How the files begin in which crates have their licences.
NAMES = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT")


def add_licences(wheel: Path) -> None:
    """Adds them to the wheel's metadata, beside what maturin has written there."""
    texts = {"LICENSE": _own(), "THIRD-PARTY-LICENSES.txt": _third_party()}
    with WheelFile(wheel) as old:
        folder = f"{old.dist_info_path}/licenses"
        old_files = {info.filename: old.read(info) for info in old.infolist() if info.filename != old.record_path}
        modes = {info.filename: info for info in old.infolist()}
    wheel.unlink()
    with WheelFile(wheel, "w") as new:
        for name, content in old_files.items():
            new.writestr(modes[name], content)
        for name, text in texts.items():
            new.writestr(f"{folder}/{name}", text)


def _own() -> str:
    return (ROOT / "LICENSE").read_text()


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
