"""Mooncake's transfer engine over TCP, through its Python package.

    mooncake_engine.py target | initiator LINE
"""

import importlib.metadata
import sys

import content
import side
from mooncake.engine import TransferEngine


def new_engine():
    engine, memory = TransferEngine(), content.new_memory()
    assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0
    assert engine.register_memory(memory.ctypes.data, memory.nbytes) == 0
    return engine, memory


class Mooncake(side.Initiator):
    version = " ".join(
        found.version for found in importlib.metadata.distributions() if found.metadata["Name"].startswith("mooncake")
    )

    def __init__(self, session, remote):
        self.session, self.remote = session, remote
        self.engine, self.memory = new_engine()
        self.local = self.memory.ctypes.data

    def write(self, local, remote, size):
        assert self.engine.transfer_sync_write(self.session, local, remote, size) == 0

    def read(self, local, remote, size):
        assert self.engine.transfer_sync_read(self.session, local, remote, size) == 0

    def submit(self, local, remote, size):
        """Its calls that return before the end take lists of numbers."""
        sizes = [size] * len(local)
        return self.engine.batch_transfer_async_write(self.session, local.tolist(), remote.tolist(), sizes)

    def wait(self, transfer):
        assert self.engine.get_batch_transfer_status([transfer]) == 0


def main():
    if sys.argv[1] == "target":
        engine, memory = new_engine()
        side.serve(f"127.0.0.1:{engine.get_rpc_port()},{memory.ctypes.data}")
    session, remote = sys.argv[2].split(",")
    side.answer(Mooncake(session, int(remote)), side.KINDS)


if __name__ == "__main__":
    main()
