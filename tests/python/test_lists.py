"""Transfers of many pieces: sequences of Piece, and columns of numbers."""

import array
import os
import unittest
from typing import Any, Callable, Dict, List, Tuple

from pair import Pair
from programs import Program

import flagcx_p2p
from flagcx_p2p import Connection, Piece

try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment]

#: The calls that take pieces, with whether bytes go to the peer.
CALLS: Dict[str, Tuple[bool, Callable[..., Any]]] = {
    "write_many": (True, lambda connection, *pieces: connection.write_many(*pieces)),
    "read_many": (False, lambda connection, *pieces: connection.read_many(*pieces)),
    "start_write": (True, lambda connection, *pieces: connection.start_write(*pieces).wait(20)),
    "start_read": (False, lambda connection, *pieces: connection.start_read(*pieces).wait(20)),
    "prepare, start": (True, lambda connection, *pieces: connection.prepare("write", *pieces).start().wait(20)),
    "prepare, run": (False, lambda connection, *pieces: connection.prepare("read", *pieces).run(timeout=20)),
}


class Lists(Pair):
    #: Not in order, not neighbours, of different lengths; also none, and more than a call copies by itself.
    PLACES = [(60000 - 1000 * i, 1000 * i + 8, (37 * i) % 700) for i in range(55)]

    def moved(self, call: Callable[..., Any], to_the_peer: bool, *pieces: Any) -> None:
        """Calls it, and compares every byte at both ends."""
        self.source[:], self.target[:] = os.urandom(self.SIZE), os.urandom(self.SIZE)
        source, target = bytearray(self.source), bytearray(self.target)
        for near, far, length in self.PLACES:
            if to_the_peer:
                target[far : far + length] = source[near : near + length]
            else:
                source[near : near + length] = target[far : far + length]
        call(self.connection, *pieces)
        self.assertEqual(self.source, source)
        self.assertEqual(self.target, target)

    def columns(self) -> "List[List[int]]":
        local, remote = self.local.address, self.remote.address
        return [list(column) for column in zip(*[(local + near, remote + far, size) for near, far, size in self.PLACES])]

    def test_pieces(self) -> None:
        address = self.remote.address
        named = [Piece(self.local, address + far, near, size) for near, far, size in self.PLACES]
        slices = [Piece(self.local[near : near + size], address + far) for near, far, size in self.PLACES]
        inside = [Piece(self.local[near:], address + far, 0, size) for near, far, size in self.PLACES]
        for name, (writes, call) in CALLS.items():
            for pieces in (named, tuple(slices), inside, [tuple(piece) for piece in named]):
                with self.subTest(name):
                    self.moved(call, writes, pieces)

    def test_an_iterator_of_pieces(self) -> None:
        address = self.remote.address
        for name, (writes, call) in CALLS.items():
            with self.subTest(name):
                self.moved(call, writes, (Piece(self.local, address + far, near, size) for near, far, size in self.PLACES))

    def test_columns(self) -> None:
        kinds: "Dict[str, Callable[[List[int]], Any]]" = {
            "list": list,
            "tuple": tuple,
            "array.array": lambda column: array.array("Q", column),
            "signed array.array": lambda column: array.array("q", column),
        }
        if numpy is not None:
            kinds["numpy.uint64"] = lambda column: numpy.array(column, dtype=numpy.uint64)
            kinds["numpy.int64"] = lambda column: numpy.array(column, dtype=numpy.int64)
            kinds["every other"] = lambda column: numpy.repeat(numpy.array(column, dtype=numpy.uint64), 2)[::2]
            kinds["numbers of numpy"] = lambda column: list(numpy.array(column, dtype=numpy.uint64))
        for name, (writes, call) in CALLS.items():
            for kind, make in kinds.items():
                with self.subTest(f"{name}, {kind}"):
                    self.moved(call, writes, *map(make, self.columns()))

    def test_a_number_holds_for_all_pieces(self) -> None:
        local, remote = self.local.address, self.remote.address
        self.connection.write_many(local + 100, [remote, remote + 50, remote + 100], 50)
        self.assertEqual(self.target[:150], self.source[100:150] * 3)
        self.connection.write_many(local, remote, self.SIZE)
        self.assertEqual(self.target, self.source)
        if numpy is not None:
            self.target[:] = bytes(self.SIZE)
            self.connection.write_many(numpy.uint64(local), numpy.uint64(remote), numpy.int32(self.SIZE))
            self.assertEqual(self.target, self.source)

    def test_columns_may_go_over_several_regions(self) -> None:
        more = [self.client.register(bytearray([value]) * 4096) for value in range(1, 9)]
        self.connection.write_many([region.address for region in more], [self.remote.address + 4096 * i for i in range(8)], 4096)
        self.assertEqual(self.target[: 8 * 4096], b"".join(bytes([value]) * 4096 for value in range(1, 9)))

    def test_regions_may_come_after_the_connect(self) -> None:
        near, far = bytearray(os.urandom(64)), bytearray(64)
        local, remote = self.client.register(near), self.server.register(far)
        self.connection.write_many([local.address, local.address + 32], [remote.address, remote.address + 32], 32)
        self.assertEqual(far, near)

    def test_no_pieces(self) -> None:
        before = bytes(self.target)
        for none in (([],), ((),), ([], [], []), (array.array("Q"), array.array("Q"), 7)):
            self.connection.write_many(*none)
            self.connection.read_many(*none)
            prepared = self.connection.prepare("write", *none)
            self.assertEqual(len(prepared), 0)
            prepared.run()
            for start in (self.connection.start_write, self.connection.start_read):
                with self.assertRaisesRegex(ValueError, "at least one piece"):
                    start(*none)
            with self.assertRaisesRegex(ValueError, "at least one piece"):
                prepared.start()
        self.assertEqual(self.target, before)

    def test_pieces_of_no_bytes(self) -> None:
        before = bytes(self.target)
        for pieces in ([Piece(self.local, self.remote.address, 0, 0)] * 3, [Piece(self.local[5:5], self.remote.address)]):
            self.connection.write_many(pieces)
            self.connection.start_read(pieces).wait(20)
        self.connection.write(self.local, self.remote.address, size=0)
        self.connection.write_many(self.local.address, self.remote.address, [0, 0])
        self.assertEqual(self.target, before)


class BadArguments(Pair):
    def setUp(self) -> None:
        super().setUp()
        self.before = bytes(self.source), bytes(self.target)

    def refused(self, kind: type, text: str, *pieces: Any) -> None:
        """By every call, with nothing moved."""
        for name, (_, call) in CALLS.items():
            with self.subTest(name), self.assertRaisesRegex(kind, text):
                call(self.connection, *pieces)
        self.assertEqual((self.source, self.target), self.before)

    def test_columns(self) -> None:
        local, remote = self.local.address, self.remote.address
        self.refused(ValueError, "length has 2 elements where 3 were expected", [local] * 3, [remote] * 3, [1, 1])
        self.refused(ValueError, "remote has 0 elements where 1 were expected", [local], [], 1)
        self.refused(ValueError, r"length\[1\]: -1 is out of range", [local] * 2, [remote] * 2, [1, -1])
        self.refused(ValueError, r"local: -5 is out of range", -5, remote, 1)
        self.refused(ValueError, r"remote\[0\]: \d+ is out of range", [local], [2**64], 1)
        self.refused(ValueError, r"remote\[1\] is -7", [local] * 2, array.array("q", [remote, -7]), 1)
        self.refused(TypeError, "length is .*expected an array of 64-bit whole numbers", local, remote, array.array("I", [1]))
        self.refused(TypeError, "length is .*expected an array of 64-bit whole numbers", local, remote, array.array("d", [1]))
        self.refused(TypeError, "local is .*expected an array of 64-bit whole numbers", b"12345678", remote, 1)
        self.refused(TypeError, "local is .*expected an array of 64-bit whole numbers", self.local, remote, 1)
        self.refused(TypeError, r"remote\[0\]: a whole number was expected, got str", local, ["x"], 1)
        self.refused(TypeError, r"length: .*|length is float", local, remote, 1.5)
        self.refused(TypeError, "three columns", [local], [remote])
        self.refused(TypeError, "three columns", [local], None, [1])

    @unittest.skipIf(numpy is None, "numpy is not installed")
    def test_arrays(self) -> None:
        local, remote = self.local.address, self.remote.address
        good = numpy.array([1, 2], dtype=numpy.uint64)
        for dtype in ("uint32", "int32", "float64", "bool", ">u8"):
            text = "length is an array of .*length.astype"
            self.refused(TypeError, text, local, remote, good.astype(dtype))
        self.refused(ValueError, r"length has 2 dimensions .*ravel", local, remote, good.reshape(1, 2))
        self.refused(ValueError, r"length\[1\] is -2", local, remote, numpy.array([1, -2]))
        self.refused(ValueError, "remote has 3 elements where 2 were expected", good, numpy.zeros(3, numpy.uint64), 1)

    def test_pieces(self) -> None:
        address, good = self.remote.address, Piece(self.local, self.remote.address, 0, 8)
        closed = self.client.register(bytearray(8))
        closed.close()
        foreign = self.server.register(bytearray(8))
        self.refused(flagcx_p2p.P2pError, "^piece 1: .*closed", [good, Piece(closed, address)])
        self.refused(ValueError, "^piece 1: .*another engine", [good, Piece(foreign, address)])
        self.refused(ValueError, "^piece 1: .*another engine", [good, Piece(foreign[2:4], address)])
        self.refused(ValueError, "^piece 2: .*not inside", [good, good, Piece(self.local, address, 1, self.SIZE)])
        self.refused(ValueError, "^piece 0: .*not inside", [Piece(self.local[10:20], address, 0, 11)])
        self.refused(ValueError, "^piece 0: -1 is out of range", [Piece(self.local, address, -1, 1)])
        self.refused(ValueError, "^piece 0: -1 is out of range", [Piece(self.local, address, 0, -1)])
        self.refused(ValueError, "^piece 0: .* is out of range", [Piece(self.local, 2**64, 0, 1)])
        self.refused(flagcx_p2p.P2pError, "^piece 1: .*no region", [good, Piece(self.local, address + 1)])
        self.refused(flagcx_p2p.P2pError, "^piece 0: .*no region", [Piece(self.local, 2**64 - 8, 0, 16)])
        self.refused(TypeError, "^piece 0: expected Piece.*got bytearray", [self.source])
        self.refused(TypeError, "^piece 0: expected a Region.*register", [Piece(self.source, address)])  # type: ignore[arg-type]
        self.refused(TypeError, "expected Piece.*in a sequence", good)
        self.refused(TypeError, "expected Piece.*in a sequence", 7)

    def test_columns_of_what_is_not_registered(self) -> None:
        local, remote = self.local.address, self.remote.address
        closed = self.client.register(bytearray(8))
        address = closed.address
        closed.close()
        self.refused(flagcx_p2p.P2pError, f"piece 1: local range {address:#x}", [local, address], remote, 8)
        foreign = self.server.register(bytearray(8)).address
        self.refused(flagcx_p2p.P2pError, f"piece 1: local range {foreign:#x}", [local, foreign], remote, 8)
        self.refused(flagcx_p2p.P2pError, "piece 1: local range .*", [local, local + 1], remote, [1, self.SIZE])
        self.refused(flagcx_p2p.P2pError, "piece 1: .*no region", local, [remote, remote + 1], self.SIZE)

    def test_memory_for_reading_only(self) -> None:
        ours = self.client.register(bytes(64), read_only=True)
        pieces = [Piece(self.local, self.remote.address, 0, 8), Piece(ours, self.remote.address)]
        with self.assertRaisesRegex(flagcx_p2p.P2pError, "piece 1: .*for reading only"):
            self.connection.read_many(pieces)
        with self.assertRaisesRegex(flagcx_p2p.P2pError, "piece 1: .*for reading only"):
            self.connection.start_read([self.local.address, ours.address], self.remote.address, 8)

    def test_time_outs(self) -> None:
        with self.assertRaises(ValueError):
            self.connection.write(self.local, self.remote.address, timeout=float("nan"))
        self.assertEqual(self.target, self.before[1])
        for good in (0, -1, 1e300, float("inf")):
            self.connection.write_many([], timeout=good)
        for long in (1e300, float("inf"), 20):
            self.connection.write(self.local, self.remote.address, timeout=long)
        self.assertEqual(self.target, self.source)


class Prepared(Pair):
    def test_it_is_made_many_times(self) -> None:
        for count in (1, 100):
            pieces = [Piece(self.local, self.remote.address + 512 * i, 512 * i, 512) for i in range(count)]
            prepared = self.connection.prepare("write", pieces)
            self.assertEqual(len(prepared), count)
            for turn in range(1000):
                self.source[: 512 * count] = bytes([turn % 251]) * (512 * count)
                if turn % 2:
                    prepared.run()
                else:
                    prepared.start().wait(20)
                if turn % 100 == 0:
                    self.assertEqual(self.target[: 512 * count], self.source[: 512 * count])
            self.assertEqual(self.target[: 512 * count], self.source[: 512 * count])

    def test_several_may_be_under_way(self) -> None:
        prepared = self.connection.prepare("read", [Piece(self.local, self.remote.address)])
        self.target[:] = os.urandom(self.SIZE)
        for transfer in [prepared.start() for _ in range(100)]:
            transfer.wait(20)
        self.assertEqual(self.source, self.target)

    def test_another_operation_is_refused(self) -> None:
        for other in ("Write", "", "send"):
            with self.assertRaisesRegex(ValueError, '"read" or "write"'):
                self.connection.prepare(other, [])  # type: ignore[call-overload]

    def test_what_has_been_closed_is_refused(self) -> None:
        region = self.client.register(bytearray(self.SIZE))
        prepared = self.connection.prepare("write", [Piece(region, self.remote.address)])
        prepared.run()
        region.close()
        for attempt in (prepared.run, prepared.start):
            with self.assertRaisesRegex(flagcx_p2p.P2pError, "piece 0"):
                attempt()
        again = self.connection.prepare("write", [Piece(self.local, self.remote.address)])
        self.client.close()
        for attempt in (again.run, again.start):
            with self.assertRaisesRegex(flagcx_p2p.P2pError, "closed"):
                attempt()


#: One queue for one transfer, which is used while a thread that copies has the worker. In a process of its own: the first engine
#: of a process decides about the queues.
CROWD = """
import threading, time
from flagcx_p2p import Engine, Piece, QueueFull
size = 32 << 20
with Engine() as client, Engine() as server:
    local, remote = client.register(bytearray(size)), server.register(bytearray(size))
    server.start_server()
    connection = client.connect(f"127.0.0.1:{server.port}")
    full, refused = threading.Event(), []

    def copy():
        while not full.is_set():
            connection.write(local, remote.address)  # waits for room, where there is none

    threads = [threading.Thread(target=copy) for _ in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 40
    while not refused and time.monotonic() < deadline:
        try:
            connection.start_write([Piece(local, remote.address, 0, 1 << 20)], block=False).wait(30)
        except QueueFull as error:
            refused.append(str(error))
    full.set()
    for thread in threads:
        thread.join()
print(refused)
"""


class Room(unittest.TestCase):
    def test_a_queue_that_is_full_is_told_or_waited_for(self) -> None:
        names = ("WORKERS_PER_POOL", "SHARD_COUNT", "QUEUE_DEPTH")
        program = Program(CROWD, **{f"FLAGCX_P2P_{name}": "1" for name in names})
        self.assertIn("no room", program.end(80)[0])


if __name__ == "__main__":
    unittest.main()
