"""Pieces longer than a descriptor can express: the package cuts them."""

import ctypes
import mmap
import os
import unittest
from typing import Callable, List
from unittest import mock

from pair import Pair

import flagcx_p2p
from flagcx_p2p import Connection, Piece, _parts

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
MAP_FIXED, MAP_NORESERVE = 0x10, 0x4000

#: The four ways to ask for one transfer of several pieces.
CALLS: List[Callable[[Connection, List[Piece]], None]] = [
    lambda connection, pieces: connection.write_many(pieces),
    lambda connection, pieces: connection.start_write(pieces).wait(60),
    lambda connection, pieces: connection.read_many(pieces),
    lambda connection, pieces: connection.start_read(pieces).wait(60),
]


class LongMemory:
    """`SIZE` bytes of addresses over little memory: 64 MiB again and again, and pages of their own at the end."""

    WINDOW, REPEATS, TAIL = 64 << 20, 65, 4 * mmap.PAGESIZE
    SIZE = WINDOW * REPEATS + TAIL

    def __init__(self, seed: int) -> None:
        file = os.memfd_create("long")
        os.truncate(file, self.WINDOW + self.TAIL)
        os.pwrite(file, bytes([seed]) * self.TAIL, self.WINDOW)
        self.address = self._map(None, self.SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        for window in range(self.REPEATS):
            self._map(self.address + window * self.WINDOW, self.WINDOW, mmap.MAP_SHARED | MAP_FIXED, file, 0)
        end = self.address + self.REPEATS * self.WINDOW
        self._map(end, self.TAIL, mmap.MAP_SHARED | MAP_FIXED, file, self.WINDOW)
        os.close(file)
        self.window = (ctypes.c_uint8 * self.WINDOW).from_address(self.address)
        self.tail = (ctypes.c_uint8 * self.TAIL).from_address(end)

    def _map(self, address: "int | None", size: int, flags: int, file: int, offset: int) -> int:
        mapped = _libc.mmap(address, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, file, offset)
        if mapped in (None, ctypes.c_size_t(-1).value):
            raise OSError(ctypes.get_errno(), "mmap")
        return int(mapped)

    def unmap(self) -> None:
        _libc.munmap(self.address, self.SIZE)


class LongPieces(Pair):
    def test_more_than_4_gib_are_moved(self) -> None:
        if os.environ["FLAGCX_P2P_FABRIC"] != "software":
            self.skipTest("not run over verbs: a device that is emulated moves 4 GiB for minutes")
        near, far = LongMemory(1), LongMemory(2)
        self.addCleanup(near.unmap)
        self.addCleanup(far.unmap)
        with self.client.register_address(near.address, near.SIZE, device=False) as local:
            with self.server.register_address(far.address, far.SIZE, device=False) as remote:
                size = near.SIZE - 2 * mmap.PAGESIZE
                near.window[:4] = b"near"
                self.connection.write(local, remote.address, size=size)
                self.assertEqual(bytes(far.window[:4]), b"near")
                self.assertEqual(bytes(far.tail), b"\1" * (far.TAIL // 2) + b"\2" * (far.TAIL // 2))
                with self.assertRaisesRegex(flagcx_p2p.P2pError, "piece 1: .*no region"):
                    self.connection.write_many([Piece(local, remote.address, 0, 8), Piece(local, remote.address + 1)])


class Parts(Pair):
    """The same with parts of 1,000 bytes."""

    def setUp(self) -> None:
        super().setUp()
        shorter = mock.patch.object(_parts, "LONGEST", 1000)
        shorter.start()
        self.addCleanup(shorter.stop)

    def test_every_call_moves_all_parts_as_one_transfer(self) -> None:
        for size in (999, 1000, 1001, 2000, 5500):
            for call in CALLS:
                self.source[:], self.target[:] = os.urandom(self.SIZE), os.urandom(self.SIZE)
                writes = CALLS.index(call) < 2
                source, target = (self.source, self.target) if writes else (self.target, self.source)
                before = bytes(target)
                pieces = [
                    Piece(self.local, self.remote.address + 7, 7, size),
                    Piece(self.local, self.remote.address + 20000, 20000, 3),
                    Piece(self.local, self.remote.address + 30000, 30000, size),
                ]
                started = f"try_{'write' if writes else 'read'}"
                with mock.patch.object(self.client._library, started, wraps=getattr(self.client._library, started)) as start:
                    call(self.connection, pieces)
                self.assertEqual(start.call_count, 1)
                expected = bytearray(before)
                for piece in pieces:
                    part = slice(piece.offset, piece.offset + piece.bytes())
                    expected[part] = source[part]
                self.assertEqual(target, expected)

    def test_errors_name_the_piece_and_not_the_part(self) -> None:
        gone = self.client.register(bytearray(5000))
        gone.close()
        pieces = [Piece(self.local, self.remote.address, 0, 5500) for _ in range(2)]
        for call in CALLS:
            for bad, reason in (
                (Piece(self.local, self.remote.address + self.SIZE - 5000, 0, 5500), "no region"),
                (Piece(gone, self.remote.address), "closed"),
            ):
                with self.assertRaisesRegex(flagcx_p2p.P2pError, f"^piece 2: .*{reason}"):
                    call(self.connection, [*pieces, bad])

    def test_a_refusal_and_a_failure_name_the_piece(self) -> None:
        local = self.client.register(bytes(5500), read_only=True)
        pieces = [Piece(self.local, self.remote.address, 0, 5500), Piece(local, self.remote.address)]
        with self.assertRaisesRegex(flagcx_p2p.P2pError, "piece 1: .*for reading only"):
            self.connection.read_many(pieces)
        parts = _parts.cut(self.client._handle, pieces, False)
        failed = flagcx_p2p._library.XferResult(state=2, iov=7, reason=b"remote access error at piece 7 of the transfer")
        error = flagcx_p2p._transfer._error(failed, parts)
        self.assertEqual(error.piece, 1)
        self.assertIn("at piece 1 of the transfer", str(error))


if __name__ == "__main__":
    unittest.main()
