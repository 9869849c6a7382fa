"""What python/examples/kv_cache relies on: its allocator, its check of all bytes, and its transport over this engine."""

import os
import pathlib
import sys
import threading
import time
import unittest

import pair  # noqa: F401  the engine's environment
import programs
from flagcx_p2p import TransferFailed

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python" / "examples" / "kv_cache"))

# For the whole process. A peer that is stopped stops transfers of this path, and not those that the kernel copies.
os.environ["FLAGCX_P2P_PATH"] = "tcp"

try:
    import numpy
except ImportError:
    print("skipped: all: numpy is not installed")
    sys.exit(77)  # as run.py

from allocator import Allocator
from content import Content
from model import LLAMA_3_8B, Model
from ours import Ours

SMALL = Model("small", layers=3, kv_heads=2, head_dim=8, bytes_per_number=2, block_tokens=4)
SIZE = 64 << 20


class Allocating(unittest.TestCase):
    def test_tables_are_shuffled_and_disjoint(self) -> None:
        allocator = Allocator(64, seed=1)
        tables = [allocator.allocate(sequence, 16) for sequence in range(4)]
        self.assertEqual(sorted(block for table in tables for block in table), list(range(64)))
        self.assertNotEqual(tables[0], sorted(tables[0]))

    def test_the_oldest_that_is_not_in_use_is_evicted(self) -> None:
        allocator = Allocator(3, seed=1)
        tables = [allocator.allocate(sequence, 1) for sequence in range(3)]
        allocator.release(1)
        allocator.release(0)
        self.assertEqual(allocator.allocate(3, 1), tables[1])
        self.assertIsNone(allocator.take(1), "evicted")
        self.assertEqual(allocator.take(0), tables[0], "still here")
        with self.assertRaisesRegex(MemoryError, "1 blocks are needed and 0 are free"):
            allocator.allocate(4, 1)
        self.assertEqual(allocator.evicted, 1)


class Checking(unittest.TestCase):
    def test_one_wrong_byte_is_seen(self) -> None:
        words = numpy.zeros((SMALL.layers, 2, 8, SMALL.piece_bytes // 8), dtype=numpy.uint64)
        content, table = Content(SMALL, words), [5, 0, 7]
        for layer in range(SMALL.layers):
            content.compute(1, layer, table)
        self.assertEqual(content.wrong_pieces(1, SMALL.layers, table), 0)
        words.view(numpy.uint8)[2, 1, 7, -1] ^= 1
        self.assertEqual(content.wrong_pieces(1, SMALL.layers, table), 1)
        # Blocks in the wrong order, and those of another sequence.
        self.assertEqual(content.wrong_pieces(1, SMALL.layers, [0, 5]), 2 * 2 * SMALL.layers)
        self.assertEqual(content.wrong_pieces(2, SMALL.layers, [5]), 2 * SMALL.layers)

    def test_the_sizes_are_those_of_the_model(self) -> None:
        self.assertEqual(LLAMA_3_8B.block_bytes, 16 * 128 * 1024, "128 KiB for a token")
        self.assertEqual(LLAMA_3_8B.piece(256, 31, 1, 255), 31 * 512 + 511)


class Sending(unittest.TestCase):
    def test_a_message_follows_its_pieces(self) -> None:
        near, far = Ours("tcp"), Ours("tcp")
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        source = numpy.frombuffer(near.make_cache(8 * 64, 64), dtype=numpy.uint8)
        target = numpy.frombuffer(far.make_cache(8 * 64, 64), dtype=numpy.uint8)
        source[:] = numpy.arange(source.size) // 64 + 1
        sending = near.connect(far.offer()).send(numpy.array([1, 4]), numpy.array([6, 0]), b"both")
        messages: "list[bytes]" = []
        deadline = time.monotonic() + 10
        sending.wait()
        while not messages:
            self.assertLess(time.monotonic(), deadline)
            messages = far.messages(0.01)
        self.assertEqual(messages, [b"both"])
        self.assertEqual(target[::64].tolist(), [5, 0, 0, 0, 0, 0, 2, 0])

    def test_the_wait_for_a_stopped_peer_takes_no_processor_time(self) -> None:
        """And it ends, as a failure, when the peer has gone."""
        near = Ours("tcp")
        self.addCleanup(near.close)
        # More than sockets hold, so that the transfer is under way until the peer goes on.
        near.make_cache(SIZE, SIZE)
        peer = programs.Peer(SIZE)
        self.addCleanup(peer.program.process.wait)
        self.addCleanup(peer.kill)
        sending = near.connect({"session": peer.session, "address": peer.address})
        peer.stop()
        under_way = sending.send(numpy.array([0]), numpy.array([0]), b"")
        threading.Timer(1, peer.kill).start()
        began, used = time.monotonic(), time.process_time()
        with self.assertRaises(TransferFailed):
            under_way.wait()
        self.assertGreater(time.monotonic() - began, 0.9)
        self.assertLess(time.process_time() - used, 0.2)


if __name__ == "__main__":
    unittest.main()
