"""The values that calls take."""

import enum


class TransferOpcode(enum.Enum):
    """What a transfer does with the peer's memory."""

    Read = 0
    Write = 1

    def __int__(self) -> int:
        return self.value

    def __index__(self) -> int:
        return self.value


class TransferNotify:
    """A message of ``transfer_sync`` and ``batch_transfer_sync``: the peer has it after the bytes, from ``get_notifies``."""

    def __init__(self, name: str = "", msg: str = "") -> None:
        #: At most 256 bytes of UTF-8, without a zero byte.
        self.name = name
        #: At most FLAGCX_P2P_NOTIF_MAX_BYTES of the peer.
        self.msg = msg

    def encoded(self) -> "tuple[bytes, bytes]":
        """As the engine sends it. Raises ValueError for such a name."""
        name = self.name.encode()
        if len(name) > 256 or b"\0" in name:
            raise ValueError(f"the name of a notification has at most 256 bytes and no zero byte, got {len(name)} bytes: put it into msg")
        return name, self.msg.encode()


Read = TransferOpcode.Read
Write = TransferOpcode.Write
