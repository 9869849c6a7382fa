"""One of two processes that move bytes through NIXL's Python agent: a program that knows nothing of the backend but its name.

    side.py BACKEND target             prints its memory and metadata, then each notification that it gets
    side.py BACKEND initiator LINE     writes, reads back and compares, then says so
    side.py BACKEND lone               prints which plugins NIXL has, and whether an agent of this backend can be made
"""

import base64
import ctypes
import importlib
import os
import sys
import time
from typing import Any

BLOCK, BLOCKS = 64 << 10, 64
SIZE = BLOCK * BLOCKS
PATIENCE_S = 30


def main() -> None:
    backend, role = sys.argv[1:3]
    if role == "lone":
        lone(backend)
    elif role == "target":
        target(backend)
    else:
        initiator(backend, sys.argv[3])


def api() -> Any:
    """`nixl` itself imports torch to choose one of these two."""
    for name in ("nixl_cu12", "nixl_cu13"):
        try:
            return importlib.import_module(f"{name}._api")
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    sys.exit("neither nixl_cu12 nor nixl_cu13 is installed")


def lone(backend: str) -> None:
    nixl = api()
    agent = nixl.nixl_agent("lone", nixl.nixl_agent_config(backends=[]))
    print("plugins:", " ".join(sorted(agent.get_plugin_list())))
    try:
        agent.create_backend(backend)
    except Exception as error:
        print(f"no agent: {type(error).__name__}: {error}")
    else:
        print("agent: made")


class Memory:
    """An agent with one registered buffer."""

    def __init__(self, backend: str, name: str) -> None:
        nixl = api()
        self.agent = nixl.nixl_agent(name, nixl.nixl_agent_config(enable_prog_thread=True, backends=[backend]))
        # Without the plugin the constructor only writes a warning, and gives an agent that can move nothing.
        if backend not in self.agent.backends:
            sys.exit(f"NIXL made an agent without the backend {backend}")
        self.buffer = ctypes.create_string_buffer(SIZE)
        self.address = ctypes.addressof(self.buffer)
        self.registered = self.agent.register_memory([(self.address, SIZE, 0, "")], "DRAM")

    def blocks(self, start: int, order: "list[int]") -> Any:
        return self.agent.get_xfer_descs([(start + index * BLOCK, BLOCK, 0) for index in order], "DRAM")


def target(backend: str) -> None:
    memory = Memory(backend, "target")
    print(memory.address, base64.b64encode(memory.agent.get_agent_metadata()).decode(), flush=True)
    # Until the test ends this process.
    while True:
        for messages in memory.agent.get_new_notifs().values():
            for message in messages:
                print("notified", message.decode(), flush=True)
        time.sleep(0.01)


def initiator(backend: str, line: str) -> None:
    remote, metadata = line.split()
    memory = Memory(backend, "initiator")
    name = memory.agent.add_remote_agent(base64.b64decode(metadata))
    peer = name.decode() if isinstance(name, bytes) else name
    content = os.urandom(SIZE)
    forwards, backwards = list(range(BLOCKS)), list(range(BLOCKS))[::-1]

    memory.buffer.raw = content
    print("write:", move(memory, "WRITE", forwards, int(remote), backwards, peer, b"written"), flush=True)
    memory.buffer.raw = bytes(SIZE)
    print("read:", move(memory, "READ", forwards, int(remote), backwards, peer, b"read"), flush=True)
    print("bytes:", "equal" if memory.buffer.raw == content else "DIFFERENT", flush=True)
    # The test ends the target now, and says so.
    sys.stdin.readline()
    print("to a killed peer:", move(memory, "WRITE", forwards, int(remote), backwards, peer, b"never"), flush=True)
    os._exit(0)  # What NIXL does to a peer that is gone while it takes agents apart is not the matter here.


def move(memory: Memory, direction: str, here: "list[int]", remote: int, there: "list[int]", peer: str, message: bytes) -> str:
    """The state in which it ends: NIXL's word, or the name of its exception."""
    try:
        handle = memory.agent.initialize_xfer(
            direction, memory.blocks(memory.address, here), memory.blocks(remote, there), peer, message
        )
        state: str = memory.agent.transfer(handle)
        end = time.monotonic() + PATIENCE_S
        while state == "PROC" and time.monotonic() < end:
            state = memory.agent.check_xfer_state(handle)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return state


if __name__ == "__main__":
    main()
