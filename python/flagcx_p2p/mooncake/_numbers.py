"""What calls take for numbers."""

import operator
from collections.abc import Sequence
from typing import SupportsIndex, TypeAlias

from ._codes import FAILED, Refused
from ._types import TransferNotify, TransferOpcode

#: Addresses or lengths: a list, or an array of numpy.uint64.
Numbers: TypeAlias = Sequence[int]


def number(value: SupportsIndex) -> int:
    """A whole number that 64 bits hold. Raises TypeError, as Mooncake does."""
    found = operator.index(value)
    if not 0 <= found < 1 << 64:
        raise TypeError(f"{found} is out of range: addresses and lengths are from 0 to 2**64 - 1")
    return found


def same_length(*columns: Numbers) -> None:
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise Refused(FAILED, f"the lists have different lengths: {lengths}")


def right_kinds(opcode: TransferOpcode, notify: "TransferNotify | None") -> None:
    if not isinstance(opcode, TransferOpcode):
        raise TypeError(f"opcode is TransferOpcode.Read or TransferOpcode.Write, got {type(opcode).__name__}")
    if notify is not None and not isinstance(notify, TransferNotify):
        raise TypeError(f"notify is a TransferNotify, got {type(notify).__name__}")
