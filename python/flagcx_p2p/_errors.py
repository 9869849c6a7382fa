"""What goes wrong."""


class P2pError(RuntimeError):
    """The engine refused a call or could not complete it; the text has the reason."""


class NotPublished(P2pError):
    """The directory has no peer of that name; the text has the names that may be meant."""


class NameInUse(P2pError):
    """Another engine has published the name, and answers at its address."""


class QueueFull(P2pError):
    """There is no room for another transfer now: ask about some that have ended, then try again."""


class TransferFailed(P2pError):
    """A transfer ended without having moved all its bytes; its destination holds anything.

    ``id``: the transfer's number, as in the log and in :class:`SlowTransfer`; ``piece``: the index of the first piece known to have
    failed; ``status``: its completion status, as in ``enum ibv_wc_status``; ``status_name``: that in words; ``peer``: the other
    end, "ip:port".
    """

    def __init__(
        self, text: str, id: int = 0, piece: int = 0, status: int = 0, status_name: str = "", peer: str = ""
    ) -> None:
        super().__init__(text)
        self.id = id
        self.piece = piece
        self.status = status
        self.status_name = status_name
        self.peer = peer


class TransferTimedOut(TransferFailed):
    """The transfer was not over at its deadline, and was stopped; or not begun at it, and nothing was moved.

    The deadline is that of the call's ``timeout=``, or of FLAGCX_P2P_XFER_TIMEOUT_MS. ``id`` is 0 for a transfer that was not begun.
    """


class TransferCancelled(TransferFailed):
    """The transfer was stopped: by :meth:`Transfer.cancel`, or with its connection or engine."""
