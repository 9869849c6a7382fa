"""This engine through its Python package.

    ours.py target | initiator LINE | alone

alone: both engines in one process, for what a call costs.
"""

import asyncio
import json
import sys
import time

import numpy
import side
from flagcx_p2p import Engine, version


class Ours(side.Initiator):
    version = version()

    def __init__(self, session, remote, engine=None):
        self.engine = engine or Engine()
        self.memory, self.local_region = memory_of(self.engine)
        self.memory[:] = 7
        self.local, self.remote = self.local_region.address, remote
        self.connection = self.engine.connect(session)

    def write(self, local, remote, size):
        self.connection.write(self.local_region, remote, local - self.local, size)

    def submit(self, local, remote, size):
        return self.connection.start_write(local, remote, size)

    def wait(self, transfer):
        transfer.wait()

    def check(self):
        """Reads the target's memory back, and compares all of it."""
        self.memory[:] = 0
        self.connection.read(self.local_region, self.remote)
        return bool((self.memory == 7).all())


def memory_of(engine):
    """Memory of the program; of the engine, where that is what the path needs."""
    if "shared" in sys.argv:
        region = engine.allocate(side.POOL)
        return numpy.frombuffer(region.buf, dtype=numpy.uint8), region
    memory = side.new_pool(0)
    return memory, engine.register(memory)


def alone():
    """Answers what one call costs where both ends are in this process, and what an await costs beside a bare one of asyncio."""
    target = Engine()
    memory, region = memory_of(target)
    target.start_server()
    ours = Ours(f"127.0.0.1:{target.port}", region.address)
    side.say(ours.version)
    for _ in sys.stdin:
        figures = side.one_write(ours) | side.scattered(ours) | {"verified": bool(memory[: side.BLOCK].all())}
        side.say(json.dumps(figures | asyncio.run(awaits(ours))))


async def awaits(ours, count=10_000):
    """Microseconds of an awaited write of 64 KiB, of the same write without await, and of an await of asyncio alone."""
    start, size = ours.connection.start_write, 64 * side.KIB
    address, remote = ours.local, ours.remote

    async def ready(loop=asyncio.get_running_loop()):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future

    timed = {}
    begin = time.perf_counter()
    for _ in range(count):
        await start(address, remote, size)
    timed["await_us"] = (time.perf_counter() - begin) / count * 1e6
    begin = time.perf_counter()
    for _ in range(count):
        start(address, remote, size).wait()
    timed["wait_us"] = (time.perf_counter() - begin) / count * 1e6
    begin = time.perf_counter()
    for _ in range(count):
        await ready()
    timed["asyncio_us"] = (time.perf_counter() - begin) / count * 1e6
    return timed


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
        ours = Ours(session, int(remote))
        side.measure(ours, ours.check)


if __name__ == "__main__":
    main()
