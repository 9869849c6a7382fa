"""Pieces cut into parts that a descriptor can name."""

import re
from typing import TYPE_CHECKING, List, NamedTuple, Sequence

from ._errors import P2pError

if TYPE_CHECKING:
    from ._handle import EngineHandle
    from ._region import Region
    from ._transfer import Piece

#: Bytes of the longest part. A descriptor says at most 4 GiB - 1; this keeps parts aligned as their piece is.
LONGEST = 1 << 31


class Part(NamedTuple):
    """What the library sees of a piece."""

    #: The index of the piece.
    piece: int
    region: "Region"
    local_address: int
    remote_address: int
    size: int


def cut(handle: "EngineHandle", pieces: "Sequence[Piece]", skip_empty: bool) -> List[Part]:
    """The parts of all pieces, in order. Refuses those of closed regions and of other engines' regions."""
    parts: List[Part] = []
    for index, piece in enumerate(pieces):
        region, size = piece.region, piece.bytes()
        if region._handle is not handle:
            raise ValueError(f"piece {index}: {region} is registered with another engine than the connection's")
        if region.closed and not handle.ended:
            raise P2pError(f"piece {index}: {region} has been closed")
        if size == 0 and skip_empty:
            continue
        local, remote = piece.local_address(), piece.remote_address
        if size <= LONGEST:
            parts.append(Part(index, region, local, remote, size))
            continue
        for offset in range(0, size, LONGEST):
            parts.append(Part(index, region, local + offset, remote + offset, min(LONGEST, size - offset)))
    return parts


def named_by_piece(text: str, parts: Sequence[Part]) -> str:
    """A refusal of the library, without the name of its function, and with the numbers of the caller's pieces for those of parts."""

    def rename(found: "re.Match[str]") -> str:
        number = int(found[1])
        return f"piece {parts[number].piece}" if number < len(parts) else found[0]

    text = re.sub(r"^flagcxP2pEngineTry\w+: ", "", text)
    return re.sub(r"\bpiece (\d+)\b", rename, text)
