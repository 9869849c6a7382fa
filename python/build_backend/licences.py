"""The licences of the crates that are linked into the wheel. maturin adds this project's own."""

from __future__ import annotations

import sys
from pathlib import Path

import third_party
from wheel.wheelfile import WheelFile

#: Where the crate of the extension is: the repository, or the source distribution.
ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "rust/python").is_dir())


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
        new.writestr(name, third_party.licences("The flagcx_p2p extension", [ROOT / "rust/python/Cargo.toml"]))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        add_licences(Path(argument))
