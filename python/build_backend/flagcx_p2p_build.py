"""The build backend of the wheel (PEP 517): maturin, after a look for what the build needs.

Without that look, what is missing shows as an error of a compiler in the middle of the log.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import leave_nothing
import licences
import maturin
import prerequisites
import third_party
from maturin import build_sdist, get_requires_for_build_sdist, get_requires_for_build_wheel

leave_nothing.remove_bytecode(*(str(module.__file__) for module in (leave_nothing, licences, prerequisites, third_party)), __file__)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

get_requires_for_build_editable = maturin.get_requires_for_build_editable
prepare_metadata_for_build_editable = maturin.prepare_metadata_for_build_editable

Settings = dict[str, Any] | None


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings = None) -> str:
    prerequisites.check(config_settings)
    name: str = maturin.prepare_metadata_for_build_wheel(metadata_directory, config_settings)
    return name


def build_wheel(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    prerequisites.check(config_settings)
    # The licences are no part of the metadata that was prepared.
    with leave_nothing.target_folder():
        name: str = maturin.build_wheel(wheel_directory, config_settings, None)
    licences.add_licences(Path(wheel_directory) / name)
    return name


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    prerequisites.check(config_settings)
    with leave_nothing.target_folder():
        name: str = maturin.build_editable(wheel_directory, config_settings, metadata_directory)
    return name
