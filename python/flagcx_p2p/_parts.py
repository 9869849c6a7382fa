"""Pieces cut into parts that a descriptor can name."""

import re
from array import array
from typing import TYPE_CHECKING, List, Sequence, Tuple

from ._errors import P2pError

if TYPE_CHECKING:
    from ._handle import EngineHandle
    from ._transfer import Piece

#: Bytes of the longest part. A descriptor names at most 4 GiB - 1; this keeps parts aligned as their piece is.
LONGEST = 1 << 31


class Parts:
    """What the library sees of a transfer's pieces."""

    def __init__(self, pieces: "Sequence[Piece]") -> None:
        # Keeps their regions, and so their memory.
        self._pieces = pieces
        #: Of each: the index of its piece, its region's number, its local and its remote address, and its bytes. Plain tuples,
        #: which take a quarter of the time of named ones.
        self.rows: List[Tuple[int, int, int, int, int]] = []

    def __len__(self) -> int:
        return len(self.rows)

    def columns(self) -> List["array[int]"]:
        """Regions, local addresses, remote addresses and sizes, of 64 bits each."""
        return [array("Q", column) for column in list(zip(*self.rows))[1:]]

    def piece_of(self, part: int) -> int:
        """The index of a part's piece; of what is no part, its own number."""
        return self.rows[part][0] if part < len(self) else part

    def named_by_piece(self, text: str) -> str:
        """A text of the library, without the name of its function, and with the numbers of pieces for those of parts."""
        text = re.sub(r"^flagcxP2pEngineTry\w+: ", "", text)
        return re.sub(r"\bpiece (\d+)\b", lambda found: f"piece {self.piece_of(int(found[1]))}", text)


def cut(handle: "EngineHandle", pieces: "Sequence[Piece]", skip_empty: bool) -> Parts:
    """The parts of all pieces, in order. Refuses those of closed regions and of other engines' regions."""
    parts = Parts(pieces)
    rows, known = parts.rows, None
    for index, piece in enumerate(pieces):
        region, remote, offset, _ = piece
        if region is not known:
            if region._handle is not handle:
                raise ValueError(f"piece {index}: {region} is registered with another engine than the connection's")
            if region.closed and not handle.ended:
                raise P2pError(f"piece {index}: {region} has been closed")
            known, number, address = region, region.number, region.address
        size = piece.bytes()
        if size == 0 and skip_empty:
            continue
        if size <= LONGEST:
            rows.append((index, number, address + offset, remote, size))
            continue
        for done in range(0, size, LONGEST):
            rows.append((index, number, address + offset + done, remote + done, min(LONGEST, size - done)))
    return parts
