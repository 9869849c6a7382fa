"""Pieces longer than a descriptor can express."""

import ctypes
import mmap
import os
import unittest

from pair import Pair

import flagcx_p2p
from flagcx_p2p import Piece

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
MAP_FIXED, MAP_NORESERVE = 0x10, 0x4000


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
                near.window[:4], far.tail[:4] = b"more", b"gone"
                self.connection.write_many([local.address, local.address], [remote.address, remote.address], [size, 0])
                self.assertEqual((bytes(far.window[:4]), bytes(far.tail[:4])), (b"more", b"\1" * 4))
                with self.assertRaisesRegex(flagcx_p2p.P2pError, "piece 1: .*no region"):
                    self.connection.write_many([Piece(local, remote.address, 0, 8), Piece(local, remote.address + 1)])


if __name__ == "__main__":
    unittest.main()
