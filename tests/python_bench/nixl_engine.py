"""NIXL with its UCX backend, through its Python package. UCX_TLS chooses the path.

    nixl_engine.py target | initiator LINE
"""

import base64
import importlib.metadata
import sys
import time

import content
import numpy
import side
from nixl_cu12._api import nixl_agent, nixl_agent_config


def new_agent(name):
    # The target's progress thread is what answers; the initiator is faster without one.
    config = nixl_agent_config(enable_prog_thread=name == "target", enable_listen_thread=False, backends=["UCX"])
    agent, memory = nixl_agent(name, config), content.new_memory()
    agent.register_memory([(memory.ctypes.data, memory.nbytes, 0, "")], "DRAM")
    return agent, memory


class Nixl(side.Initiator):
    version = importlib.metadata.version("nixl")

    def __init__(self, remote, metadata):
        self.agent, self.memory = new_agent("initiator")
        self.local, self.remote = self.memory.ctypes.data, remote
        name = self.agent.add_remote_agent(base64.b64decode(metadata))
        self.peer = name.decode() if isinstance(name, bytes) else name
        # As its documentation does for what is sent often: the blocks of the pool are prepared once, a call names some.
        self.here = self.prepare("", self.local)
        self.there = self.prepare(self.peer, remote)

    def prepare(self, peer, start):
        blocks = [(start + at, content.BLOCK, 0) for at in range(0, content.POOL, content.BLOCK)]
        return self.agent.prep_xfer_dlist(peer, self.agent.get_xfer_descs(blocks, "DRAM"))

    def write(self, local, remote, size):
        if size == content.BLOCK:
            here = numpy.array([(local - self.local) // content.BLOCK], dtype=numpy.int32)
            there = numpy.array([(remote - self.remote) // content.BLOCK], dtype=numpy.int32)
            handle = self.agent.make_prepped_xfer("WRITE", self.here, here, self.there, there)
            self.agent.transfer(handle)
            self.wait(handle)
        else:
            self.move("WRITE", local, remote, size)

    def read(self, local, remote, size):
        self.move("READ", local, remote, size)

    def move(self, direction, local, remote, size):
        descs = [self.agent.get_xfer_descs([(address, size, 0)], "DRAM") for address in (local, remote)]
        handle = self.agent.initialize_xfer(direction, *descs, self.peer, b"")
        self.agent.transfer(handle)
        self.wait(handle)

    def submit(self, local, remote, size):
        here = ((local - numpy.uint64(self.local)) // numpy.uint64(size)).astype(numpy.int32)
        there = ((remote - numpy.uint64(self.remote)) // numpy.uint64(size)).astype(numpy.int32)
        handle = self.agent.make_prepped_xfer("WRITE", self.here, here, self.there, there)
        self.agent.transfer(handle)
        return handle

    def wait(self, transfer):
        while (state := self.agent.check_xfer_state(transfer)) == "PROC":
            pass
        assert state == "DONE", state
        self.agent.release_xfer_handle(transfer)


def main():
    if sys.argv[1] == "target":
        agent, memory = new_agent("target")
        side.say(f"{memory.ctypes.data},{base64.b64encode(agent.get_agent_metadata()).decode()}")
        while True:
            time.sleep(3600)
    remote, metadata = sys.argv[2].split(",")
    side.answer(Nixl(int(remote), metadata), side.KINDS)


if __name__ == "__main__":
    main()
