"""What operators ask."""

from . import _native
from ._types import FabricInfo


def fabric_info() -> FabricInfo:
    """What engines of this process move bytes with, and why that was chosen."""
    return FabricInfo(*_native.fabric_info())
