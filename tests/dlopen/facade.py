"""FlagCX's own Python programs: the `extern "C"` functions of the library by ctypes, with nothing of this project's package.

They are declared as FlagCX's wrapper does, see docs/consumers.md. FLAGCX_P2P_LIBRARY names the library.
"""

import ctypes
import os
import socket
import tempfile
import unittest

FUNCTIONS = {
    "flagcxP2pRpcEngineCreate": (ctypes.c_void_p, []),
    "flagcxP2pRpcEngineDestroy": (None, [ctypes.c_void_p]),
    "flagcxP2pRpcGetPort": (ctypes.c_int, [ctypes.c_void_p]),
    "flagcxP2pRpcStartServer": (ctypes.c_int, [ctypes.c_void_p]),
    "flagcxP2pRpcRegister": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p]),
    "flagcxP2pRpcRegisterHost": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p]),
    "flagcxP2pRpcGetConn": (ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]),
    "flagcxP2pRpcBatchWriteSync": (ctypes.c_int, [ctypes.c_void_p, ctypes.c_int] + [ctypes.c_void_p] * 3),
}

BLOCKS, BLOCK = 64, 4096

#: The library reads its variables once, with the first engine.
FOLDER = tempfile.TemporaryDirectory()
os.environ["FLAGCX_P2P_METRICS"] = f"unix:{FOLDER.name}/metrics-%p"


class Facade(unittest.TestCase):
    def setUp(self) -> None:
        self.library = ctypes.CDLL(os.environ["FLAGCX_P2P_LIBRARY"])
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(self.library, name)
            function.restype, function.argtypes = result, arguments
        self.server, self.client = self.engine(), self.engine()

    def engine(self) -> int:
        engine: int = self.library.flagcxP2pRpcEngineCreate()
        self.assertTrue(engine)
        self.addCleanup(self.library.flagcxP2pRpcEngineDestroy, engine)
        return engine

    def register(self, function: str, engine: int, memory: "ctypes.Array[ctypes.c_char]") -> int:
        number = ctypes.c_uint64()
        register = getattr(self.library, function)
        self.assertEqual(register(engine, ctypes.addressof(memory), len(memory), ctypes.byref(number)), 0)
        return ctypes.addressof(memory)

    def test_scattered_blocks_arrive(self) -> None:
        content = os.urandom(BLOCKS * BLOCK)
        source, target = ctypes.create_string_buffer(content, len(content)), ctypes.create_string_buffer(len(content))
        there = self.register("flagcxP2pRpcRegisterHost", self.server, target)
        here = self.register("flagcxP2pRpcRegister", self.client, source)
        self.assertEqual(self.library.flagcxP2pRpcStartServer(self.server), 0)
        port = self.library.flagcxP2pRpcGetPort(self.server)
        peer = self.library.flagcxP2pRpcGetConn(self.client, f"127.0.0.1:{port}".encode())
        self.assertTrue(peer)

        # In the opposite order.
        column = ctypes.c_uint64 * BLOCKS
        local = column(*(here + index * BLOCK for index in range(BLOCKS)))
        remote = column(*(there + (BLOCKS - 1 - index) * BLOCK for index in range(BLOCKS)))
        sizes = column(*[BLOCK] * BLOCKS)
        write = self.library.flagcxP2pRpcBatchWriteSync
        self.assertEqual(write(peer, BLOCKS, local, remote, sizes), 0)
        blocks = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
        self.assertEqual(target.raw, b"".join(reversed(blocks)))

        # One block that the peer has not registered: nothing is sent.
        ctypes.memset(there, 0, len(content))
        remote[BLOCKS - 1] = 4096
        self.assertEqual(write(peer, BLOCKS, local, remote, sizes), -1)
        self.assertEqual(target.raw, bytes(len(content)))

    def test_the_metrics_endpoint_answers_in_a_process_that_has_only_the_library(self) -> None:
        memory = ctypes.create_string_buffer(12345)
        self.register("flagcxP2pRpcRegister", self.server, memory)
        self.assertIn("\nflagcx_p2p_registered_bytes 12345\n", answer("/metrics"))
        self.assertIn('"flagcx_p2p_registered_bytes"', answer("/snapshot"))
        self.assertEqual(answer("/healthz").split("\r\n\r\n")[1].strip(), "ok")


def answer(page: str) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(f"{FOLDER.name}/metrics-{os.getpid()}")
        client.sendall(f"GET {page} HTTP/1.1\r\n\r\n".encode())
        text = b"".join(iter(lambda: client.recv(1 << 16), b"")).decode()
    assert text.startswith("HTTP/1.1 200 "), text
    return text


if __name__ == "__main__":
    unittest.main()
