"""What goes wrong."""


class P2pError(RuntimeError):
    """The engine refused a call or could not complete it; the text has the reason."""


class TransferFailed(P2pError):
    """A transfer ended without having moved all its bytes; its destination holds anything.

    ``piece`` is the index of the first piece known to have failed, ``status`` its completion status as in
    ``enum ibv_wc_status``, ``peer`` the other end.
    """

    def __init__(self, text: str, piece: int = 0, status: int = 0, peer: str = "") -> None:
        super().__init__(text)
        self.piece = piece
        self.status = status
        self.peer = peer


class TransferTimedOut(TransferFailed):
    """The transfer was not over at its deadline (FLAGCX_P2P_XFER_TIMEOUT_MS) and was stopped."""


class TransferCancelled(TransferFailed):
    """The transfer was stopped by :meth:`Transfer.cancel`."""
