#!/usr/bin/env python3
"""Writes a text into the memory of another process, and reads it back. Needs the package: pip install ./python

hello.py receive                      # prints its port and the address of its memory; a line of input ends it
hello.py send HOST:PORT ADDRESS       # on any machine that reaches it
"""

import sys

from flagcx_p2p import Engine, P2pError

SIZE = 4096


def receive() -> None:
    with Engine() as engine:
        memory = bytearray(SIZE)
        # Memory registered before a peer connects is announced to it.
        region = engine.register(memory)
        engine.start_server()
        print(f"port {engine.port}, address {region.address:#x}", flush=True)
        sys.stdin.readline()
        print("received:", memory.rstrip(b"\0").decode())


def send(session: str, address: int) -> None:
    with Engine() as engine:
        memory = bytearray(b"hello from Python".ljust(SIZE, b"\0"))
        region = engine.register(memory)
        peer = engine.connect(session)
        peer.write(region, address)  # all bytes are in the peer's memory when it returns
        peer.read(region, address)
        print("written and read back:", memory.rstrip(b"\0").decode(), "path", peer.info().path)


def main() -> int:
    words = sys.argv[1:]
    try:
        if words == ["receive"]:
            receive()
        elif len(words) == 3 and words[0] == "send":
            send(words[1], int(words[2], 16))
        else:
            print("usage: hello.py receive | hello.py send HOST:PORT ADDRESS", file=sys.stderr)
            return 2
    except P2pError as error:
        print(f"hello.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
