#!/usr/bin/env python3
"""Moves an array from this process into the memory of another one, changes it there, and reads it back.

    pip install ./python
    python3 python/examples/move_array.py

The other process is started here, but could be anywhere: all that it tells is a port and an address. A numpy array is
moved where numpy is installed, a bytearray otherwise.
"""

import multiprocessing
from multiprocessing.connection import Connection as Pipe
from typing import Any

import flagcx_p2p

try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment, unused-ignore]

COUNT = 1 << 20
# Where both engines listen. Unset, it would be the address of an interface that the engine chooses.
HOST = "127.0.0.1"
SETTINGS = {"FLAGCX_P2P_BIND": HOST}


def make_array(first: int) -> Any:
    """A million numbers, counting from ``first``; modulo 256 where numpy is missing."""
    if numpy is not None:
        return numpy.arange(first, first + COUNT, dtype=numpy.float64)
    return bytearray((first + i) % 256 for i in range(COUNT))


def receiver(pipe: Pipe) -> None:
    """Offers an array to peers, and changes what has been written into it."""
    with flagcx_p2p.Engine(settings=SETTINGS) as engine:
        array = make_array(0)
        region = engine.register(array)
        engine.start_server()
        pipe.send((engine.port, region.address))
        pipe.recv()  # it has been written
        print(f"receiver: the array begins with {list(array[:4])}")
        for i in range(4):
            array[i] = 255 - array[i]
        pipe.send("changed")
        pipe.recv()  # it has been read


def sender(pipe: Pipe) -> None:
    """Writes an array to the receiver, and reads back what became of it."""
    port, address = pipe.recv()
    with flagcx_p2p.Engine(settings=SETTINGS) as engine:
        array = make_array(100)
        region = engine.register(array)
        connection = engine.connect(f"{HOST}:{port}")
        connection.write(region, address)
        print(f"sender: wrote {region.size} bytes, path {connection.info().path}")
        pipe.send("written")
        pipe.recv()
        connection.read(region, address)
        print(f"sender: the array now begins with {list(array[:4])}")
        expected = make_array(100)
        assert list(array[:4]) == [255 - value for value in expected[:4]]
        assert bytes(array[4:]) == bytes(expected[4:])
        pipe.send("read")


def main() -> None:
    """Starts the receiver in a process of its own, and sends to it."""
    context = multiprocessing.get_context("spawn")
    pipe, other_end = context.Pipe()
    process = context.Process(target=receiver, args=(other_end,))
    process.start()
    # With one end in each process, either learns of the other's end instead of waiting for it.
    other_end.close()
    try:
        with pipe:
            sender(pipe)
    finally:
        process.join()
    print("moved there and back: " + ("numpy array" if numpy is not None else "bytearray, numpy is not installed"))


if __name__ == "__main__":
    main()
