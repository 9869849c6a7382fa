"""The interface of Mooncake's ``mooncake.engine``, over this package's engine: change one import.

    from mooncake.engine import TransferEngine        # before
    from flagcx_p2p.mooncake import TransferEngine    # after

Names, arguments and results are those of mooncake-transfer-engine 0.3.13; docs/mooncake.md lists the differences. Both ends must use this
package: Mooncake's own engine speaks another protocol. Any method may be called from any thread.

Calls that report a number answer 0, or less than 0 after a failure. The reason of each failure is a line of the logger
``flagcx_p2p.mooncake``, which Python prints to stderr unless the program sets up its log.
"""

from ._engine import TransferEngine
from ._types import Read, TransferNotify, TransferOpcode, Write

__all__ = ["Read", "TransferEngine", "TransferNotify", "TransferOpcode", "Write"]
