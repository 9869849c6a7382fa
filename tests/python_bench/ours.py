"""This engine through its Python package.

    ours.py target | initiator LINE | alone

alone: both engines in one process, for what a call costs.
"""

import asyncio
import sys
import time

import content
import numpy
import side
from flagcx_p2p import Engine, version

#: What is awaited: each from the beginning of the pool to the beginning of the target's.
AWAITED, AWAITS = 64 * content.KIB, 10_000


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
    """Microseconds of an awaited write of 64 KiB."""

    async def run():
        for _ in range(AWAITS):
            await ours.connection.start_write(ours.local, ours.remote, AWAITED)

    return {"await_us": _microseconds(lambda: asyncio.run(run()), expected)}


def waited(ours, expected):
    """The same write without await."""

    def run():
        for _ in range(AWAITS):
            ours.connection.start_write(ours.local, ours.remote, AWAITED).wait()

    return {"wait_us": _microseconds(run, expected)}


def asyncio_alone(_ours, _expected):
    """An await of asyncio that has nothing to do."""

    async def run():
        loop = asyncio.get_running_loop()
        for _ in range(AWAITS):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future

    begin = time.perf_counter()
    asyncio.run(run())
    return {"asyncio_us": (time.perf_counter() - begin) / AWAITS * 1e6}


def _microseconds(run, expected):
    begin = time.perf_counter()
    run()
    seconds = time.perf_counter() - begin
    blocks = numpy.arange(AWAITED // content.BLOCK)
    expected.written(blocks, blocks)
    return seconds / AWAITS * 1e6


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
        side.answer(Ours(session, int(remote)), side.KINDS)


if __name__ == "__main__":
    main()
