"""This engine through its Python package.

    ours.py target | initiator LINE | alone

alone: both engines in one process, for what a call costs.
"""

import asyncio
import os
import queue
import sys
import threading
import time

import content
import numpy
import side
from flagcx_p2p import Engine, version

#: What is awaited: each from the beginning of the pool to the beginning of the target's.
AWAITED, AWAITS, TOGETHER = 64 * content.KIB, 10_000, 100


class Ours(side.Initiator):
    version = version()

    def __init__(self, session, remote):
        self.engine = Engine()
        self.memory, self.region = memory_of(self.engine)
        self.local, self.remote = self.region.address, remote
        self.connection = self.engine.connect(session)

    def write(self, local, remote, size):
        self.connection.write(self.region, remote, local - self.local, size)

    def read(self, local, remote, size):
        self.connection.read(self.region, remote, local - self.local, size)

    def submit(self, local, remote, size):
        return self.connection.start_write(local, remote, size)

    def wait(self, transfer):
        transfer.wait()


def memory_of(engine):
    """Memory of the program; of the engine, where that is what the path needs."""
    if "shared" in sys.argv:
        region = engine.allocate(content.POOL + content.SCRATCH)
        return content.filled(numpy.frombuffer(region.buf, dtype=numpy.uint8)), region
    memory = content.new_memory()
    return memory, engine.register(memory)


def alone():
    """Answers what one call costs where both ends are in this process, and what an await costs beside a bare one of asyncio."""
    target = Engine()
    _memory, region = memory_of(target)
    target.start_server()
    side.answer(Ours(f"127.0.0.1:{target.port}", region.address), (side.one_write, side.scattered, awaited, waited, asyncio_alone))


def awaited(ours, expected):
    """Microseconds of an awaited write of 64 KiB, which has ended when the call returns."""
    return {"await_us": _awaits(ours, expected, AWAITED)}


def awaited_block(ours, expected):
    """Those of an awaited write of 4 KiB that is under way when the call returns: the descriptor of the loop tells its end."""
    return {"await_block_us": _awaits(ours, expected, content.BLOCK)}


def waited(ours, expected):
    """The same write without await."""
    return {"wait_us": _waits(ours, expected, AWAITED)}


def waited_block(ours, expected):
    return {"wait_block_us": _waits(ours, expected, content.BLOCK)}


def asyncio_alone(_ours, _expected):
    """An await of asyncio that has nothing to do."""

    async def run():
        loop = asyncio.get_running_loop()
        for _ in range(AWAITS):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future

    return {"asyncio_us": _microseconds(run)}


def asyncio_woken(_ours, _expected):
    """An await of asyncio that another thread ends, as the engine's worker does."""

    async def run():
        loop, futures = asyncio.get_running_loop(), queue.SimpleQueue()

        def end_them():
            while (future := futures.get()) is not None:
                loop.call_soon_threadsafe(future.set_result, None)

        thread = threading.Thread(target=end_them)
        thread.start()
        for _ in range(AWAITS):
            future = loop.create_future()
            futures.put(future)
            await future
        futures.put(None)
        thread.join()

    return {"asyncio_woken_us": _microseconds(run)}


def awaited_together(ours, expected):
    """Those of an awaited write of 4 KiB where a hundred are awaited at a time."""

    async def run():
        for _ in range(AWAITS // TOGETHER):
            started = [ours.connection.start_write(ours.local, ours.remote, content.BLOCK) for _ in range(TOGETHER)]
            await asyncio.gather(*started)

    return {"await_together_us": _written(_microseconds(run), expected, content.BLOCK)}


def _awaits(ours, expected, size):
    async def run():
        for _ in range(AWAITS):
            await ours.connection.start_write(ours.local, ours.remote, size)

    return _written(_microseconds(run), expected, size)


def _waits(ours, expected, size):
    async def run():
        for _ in range(AWAITS):
            ours.connection.start_write(ours.local, ours.remote, size).wait()

    return _written(_microseconds(run), expected, size)


def _microseconds(run):
    begin = time.perf_counter()
    asyncio.run(run())
    return (time.perf_counter() - begin) / AWAITS * 1e6


def _written(microseconds, expected, size):
    blocks = numpy.arange(size // content.BLOCK)
    expected.written(blocks, blocks)
    return microseconds


def main():
    if sys.argv[1] == "alone":
        alone()
    elif sys.argv[1] == "target":
        engine = Engine()
        _memory, region = memory_of(engine)
        engine.start_server()
        side.serve(f"127.0.0.1:{engine.port},{region.address}")
    else:
        session, remote = sys.argv[2].split(",")
        # Over the other paths the call itself copies a block: no await waits.
        awaits = (awaited_block, awaited_together, waited_block, asyncio_woken)
        side.answer(Ours(session, int(remote)), side.KINDS + (awaits if os.environ.get("FLAGCX_P2P_PATH") == "tcp" else ()))


if __name__ == "__main__":
    main()
