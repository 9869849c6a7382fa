"""Point-to-point transfers between two processes: one-sided READ and WRITE of registered memory.

    receiver                                   sender
    --------                                   ------
    engine = Engine()                          engine = Engine()
    region = engine.register(bytearray(n))     region = engine.register(data)
    engine.start_server()                      conn = engine.connect(f"{host}:{port}")
    ... tell engine.port, region.address       conn.write(region, address)

The sender's bytes are in the receiver's memory when ``write`` returns; the receiver takes no part in it.

Everything may be called from any thread at any time, :meth:`Engine.close` too; calls that wait let other threads run. They end by
their own deadlines:

- ``connect`` after FLAGCX_P2P_CONNECT_TIMEOUT_MS and FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS, ``publish`` and ``peers`` after the former;
- ``Region.close`` after FLAGCX_P2P_XFER_TIMEOUT_MS, ``notify`` after 5 s;
- all of these, ``write``, ``read`` and ``Transfer.wait`` look up five times a second, and give up when the engine is closed or a signal
  handler raises, as that of Ctrl-C does.

In a forked process, create an engine of its own: the parent's objects may be closed and dropped there, and nothing else.

The engine is inside: nothing else needs to be installed.
"""

import atexit as _atexit

from . import _names
from ._asyncio import notifications as _notifications
from ._errors import (
    NameInUse,
    NotPublished,
    P2pError,
    QueueFull,
    TransferCancelled,
    TransferFailed,
    TransferTimedOut,
)
from ._info import fabric_info
from ._native import (
    Connection,
    Engine,
    Prepared,
    Region,
    RegionSlice,
    SharedMemory,
    Transfer,
    close_all as _close_all,
    metrics_text,
    version,
)
from ._types import (
    Amount,
    ConnectionInfo,
    FabricInfo,
    Notification,
    Peer,
    Piece,
    RailInfo,
    SlowTransfer,
    Stats,
)

__all__ = [
    "Amount",
    "Connection",
    "ConnectionInfo",
    "Engine",
    "FabricInfo",
    "NameInUse",
    "NotPublished",
    "Notification",
    "P2pError",
    "Peer",
    "Piece",
    "Prepared",
    "QueueFull",
    "RailInfo",
    "Region",
    "RegionSlice",
    "SharedMemory",
    "SlowTransfer",
    "Stats",
    "Transfer",
    "TransferCancelled",
    "TransferFailed",
    "TransferTimedOut",
    "fabric_info",
    "metrics_text",
    "version",
]

setattr(Engine, "notifications", _notifications)
for _call in (_names.connect_async, _names.publish_async, _names.peers_async):
    setattr(Engine, _call.__name__, _call)

# Before the interpreter stops other threads: those that wait for a transfer are told that the engine is closed.
_atexit.register(_close_all)
