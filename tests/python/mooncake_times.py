"""What the same calls take on one of the packages, between two processes of this host: JSON, medians.

    mooncake_times.py flagcx_p2p.mooncake | mooncake.engine
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable

#: Mooncake refuses 4096 ranges in one call (-1), not 2048.
BLOCK, BLOCKS, LARGE = 4096, 2048, 64 << 20
os.environ["MOONCAKE_SCRIPT_SIZE"] = str(LARGE)

from mooncake_script import Pair  # noqa: E402  it takes the size from there


def median(count: int, call: "Callable[[], object]") -> float:
    """Of so many calls, in seconds; each answers 0."""
    times = []
    for _ in range(count):
        begun = time.perf_counter()
        code = call()
        times.append(time.perf_counter() - begun)
        assert code == 0, code
    return statistics.median(times)


def measure(pair: Pair) -> "dict[str, float]":
    engine, here, there, peer = pair.engine, pair.address, pair.there, pair.peer
    assert engine.register_memory(here, LARGE) == 0
    blocks = [number * 37 % (LARGE // BLOCK) for number in range(BLOCKS)]
    columns = [here + BLOCK * one for one in blocks], [there + BLOCK * one for one in blocks], [BLOCK] * BLOCKS

    def again() -> int:
        return int(engine.unregister_memory(here) or engine.register_memory(here, LARGE))

    def started() -> int:
        return int(engine.get_batch_transfer_status([engine.batch_transfer_async_write(peer, *columns)]))

    for _ in range(200):
        engine.transfer_sync_write(peer, here, there, BLOCK)
    found = {
        "transfer_sync_write, 4 KiB, us": 1e6 * median(2000, lambda: engine.transfer_sync_write(peer, here, there, BLOCK)),
        "transfer_sync_read, 4 KiB, us": 1e6 * median(2000, lambda: engine.transfer_sync_read(peer, here, there, BLOCK)),
        "batch_transfer_sync_write, 2048 scattered x 4 KiB, ms": 1e3
        * median(9, lambda: engine.batch_transfer_sync_write(peer, *columns)),
        "batch_transfer_async_write and its status, the same, ms": 1e3 * median(9, started),
        "transfer_sync_write, 64 MiB, ms": 1e3 * median(9, lambda: engine.transfer_sync_write(peer, here, there, LARGE)),
        "transfer_sync_read, 64 MiB, ms": 1e3 * median(9, lambda: engine.transfer_sync_read(peer, here, there, LARGE)),
        "unregister_memory and register_memory, 64 MiB, us": 1e6 * median(50, again),
    }
    pair.bytes[:8] = b"the last"
    assert pair.write(0, 0, 8) == 0 and bytes(pair.ask("bytes", 0, 8)) == b"the last"
    return found


def main() -> None:
    pair = Pair(sys.argv[1])
    print(json.dumps(measure(pair)), flush=True)
    pair.target.kill()
    os._exit(0)


if __name__ == "__main__":
    main()
