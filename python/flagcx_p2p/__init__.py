"""Point-to-point transfers between two processes: one-sided READ and WRITE of registered memory.

    receiver                                   sender
    --------                                   ------
    engine = Engine()                          engine = Engine()
    region = engine.register(bytearray(n))     region = engine.register(data)
    engine.start_server()                      conn = engine.connect(f"{host}:{port}")
    ... tell engine.port, region.address       conn.write(region, address)

The sender's bytes are in the receiver's memory when ``write`` returns; the receiver takes no part in it.

Everything may be called from any thread at any time, :meth:`Engine.close` too; calls that wait let other threads run.
``close`` refuses new calls and waits for those that other threads are in. They end by their own deadlines:

- ``connect`` after FLAGCX_P2P_CONNECT_TIMEOUT_MS and FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS;
- ``Region.close`` after FLAGCX_P2P_XFER_TIMEOUT_MS;
- ``write``, ``read`` and ``Transfer.wait`` look up five times a second, and give up when the engine is closed or a signal
  handler raises, as that of Ctrl-C does.

In a forked process, create an engine of its own: the parent's objects may be closed and dropped there, and nothing else.

The shared library is found as :func:`load` describes.
"""

from ._connection import Connection, ConnectionInfo
from ._engine import Engine, Notification, SlowTransfer
from ._errors import P2pError, TransferCancelled, TransferFailed, TransferTimedOut
from ._library import FabricInfo, fabric_info, load, metrics_text, version
from ._region import Region
from ._shared import SharedMemory
from ._transfer import Piece, Transfer

__all__ = [
    "Connection",
    "ConnectionInfo",
    "Engine",
    "FabricInfo",
    "Notification",
    "P2pError",
    "Piece",
    "Region",
    "SharedMemory",
    "SlowTransfer",
    "Transfer",
    "TransferCancelled",
    "TransferFailed",
    "TransferTimedOut",
    "fabric_info",
    "load",
    "metrics_text",
    "version",
]
