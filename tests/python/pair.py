"""What several suites share: the environment of the engines, and two engines of one process."""

import os
import unittest

os.environ.setdefault("FLAGCX_P2P_FABRIC", "software")
os.environ.setdefault("FLAGCX_P2P_BIND", "127.0.0.1")
os.environ.setdefault("FLAGCX_P2P_CONNECT_TIMEOUT_MS", "1000")

import flagcx_p2p


class Pair(unittest.TestCase):
    """A client connected to a server, with a buffer each."""

    SIZE = 1 << 16

    def setUp(self) -> None:
        self.source, self.target = bytearray(os.urandom(self.SIZE)), bytearray(self.SIZE)
        self.client, self.server = flagcx_p2p.Engine(), flagcx_p2p.Engine()
        self.addCleanup(self.server.close)
        self.addCleanup(self.client.close)
        self.local, self.remote = self.client.register(self.source), self.server.register(self.target)
        self.server.start_server()
        self.connection = self.client.connect(f"127.0.0.1:{self.server.port}")
