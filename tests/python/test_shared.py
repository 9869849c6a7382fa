"""Shared memory: allocated by the engine, and registered by a descriptor."""

import gc
import mmap
import os
import pickle
import tempfile
import unittest

from pair import Pair
from programs import Peer, Program

import flagcx_p2p
from flagcx_p2p import Engine, P2pError


def mapped(name: str = "flagcx-p2p-memory") -> int:
    """How many mappings of allocated memory this process has."""
    with open("/proc/self/maps") as maps:
        return sum(name in line for line in maps)


class Shared(Pair):
    def test_bytes_move_to_and_from_it(self) -> None:
        with self.client.allocate(self.SIZE) as memory:
            self.assertEqual((memory.size, len(memory.buf), bytes(memory.buf)), (self.SIZE, self.SIZE, bytes(self.SIZE)))
            memory.buf[:] = self.source
            self.connection.write(memory, self.remote.address)
            self.assertEqual(self.target, self.source)
            memory.buf[:] = bytes(self.SIZE)
            self.connection.read(memory, self.remote.address, offset=16, size=100)
            self.assertEqual(memory.buf[16:116], self.source[:100])
            self.assertEqual(bytes(memory.buf[116:]), bytes(self.SIZE - 116))

    def test_another_process_is_written_from_it(self) -> None:
        with Peer(self.SIZE) as peer, self.client.allocate(self.SIZE) as memory:
            connection = self.client.connect(peer.session)
            memory.buf[:] = self.source
            connection.write(memory, peer.address)
            memory.buf[:] = bytes(self.SIZE)
            connection.read(memory, peer.address)
            self.assertEqual(memory.buf, self.source)

    def test_views_keep_it(self) -> None:
        before = mapped()
        memory = self.client.allocate(self.SIZE)
        view, inner = memory.buf, memory.buf[100:200]
        memory.close()
        memory.close()
        self.assertTrue(memory.closed)
        with self.assertRaisesRegex(P2pError, "has been closed"):
            memory.buf
        with self.assertRaisesRegex(P2pError, "has been closed"):
            self.connection.write(memory, self.remote.address)
        view[150] = 7
        del view
        self.assertEqual((inner[50], mapped()), (7, before + 1))
        del inner
        self.assertEqual(mapped(), before)

    def test_views_keep_it_beyond_the_engine(self) -> None:
        before = mapped()
        engine = Engine()
        memory, dropped = engine.allocate(4096), engine.allocate(4096)
        view = memory.buf
        del dropped
        engine.close()
        view[0] = 1
        self.assertTrue(memory.closed)
        self.assertEqual(mapped(), before + 1)
        memory.close()
        self.assertEqual(view[0], 1)
        del view
        self.assertEqual(mapped(), before)

    def test_it_is_a_buffer_itself(self) -> None:
        before = mapped()
        memory = self.client.allocate(4096)
        view = memoryview(memory)
        self.assertEqual((view.nbytes, view.format, view.readonly, len(memory)), (4096, "B", False, 4096))
        view[:3] = b"abc"
        self.assertEqual(memory.buf[:3], b"abc")
        memory.close()
        with self.assertRaisesRegex(P2pError, "has been closed"):
            memoryview(memory)
        self.assertEqual((view[:3], mapped()), (b"abc", before + 1))
        del view
        self.assertEqual(mapped(), before)

    def test_peers_do_not_find_it_unless_it_is_announced(self) -> None:
        with self.server.allocate(4096, announced=False) as memory, self.assertRaisesRegex(P2pError, "no region"):
            self.connection.write(self.local, memory.address, size=10)

    def test_parts_of_it_move(self) -> None:
        with self.client.allocate(self.SIZE) as memory:
            memory.buf[:] = self.source
            self.connection.write(memory[100:-100][50:60], self.remote.address)
            self.assertEqual(self.target[:20], self.source[150:160] + bytes(10))

    def test_what_is_dropped_is_freed(self) -> None:
        before = mapped()
        for _ in range(20):
            self.client.allocate(4096).buf[0] = 1
        gc.collect()
        self.assertEqual(mapped(), before)

    def test_parts_of_it_are_registered_as_shared_memory(self) -> None:
        memory = self.client.allocate(self.SIZE)
        memory.buf[:] = self.source
        with self.client.register(memory.buf[4096:8192]) as part:
            self.connection.write(part, self.remote.address)
        self.assertEqual(self.target[:4096], self.source[4096:8192])

    def test_what_is_registered_by_its_address_is_freed_with_that_registration(self) -> None:
        before = mapped()
        memory = self.client.allocate(self.SIZE)
        part = self.client.register_address(memory.address + 4096, 4096)
        del memory
        gc.collect()
        self.assertEqual(mapped(), before + 1)
        part.close()
        self.assertEqual(mapped(), before)

    def test_what_is_registered_by_its_address_is_freed_with_the_engine(self) -> None:
        before = mapped()
        engine = Engine()
        memory = engine.allocate(self.SIZE)
        part = engine.register_address(memory.address + 4096, 4096)
        memory.close()
        self.assertEqual(mapped(), before + 1)
        engine.close()
        self.assertEqual((mapped(), part.closed), (before, True))

    def test_peers_may_only_read_what_is_read_only(self) -> None:
        with self.server.allocate(self.SIZE, read_only=True) as memory:
            memory.buf[:] = self.target
            self.connection.read(self.local, memory.address)
            with self.assertRaisesRegex(P2pError, "for reading only"):
                self.connection.write(self.local, memory.address)

    def test_bad_sizes_are_refused(self) -> None:
        for size in (0, -1, 1 << 63, 1 << 200):
            with self.assertRaisesRegex(ValueError, "cannot be allocated"):
                self.client.allocate(size)
        for other in ("4096", None, 1.5):
            with self.assertRaises(TypeError):
                self.client.allocate(other)  # type: ignore[arg-type]
        with self.assertRaisesRegex(P2pError, "are left of"):
            self.client.allocate(1 << 46)
        with self.assertRaisesRegex(P2pError, "vm.nr_hugepages"):
            self.client.allocate(1 << 40, huge=True)

    def test_it_cannot_be_pickled(self) -> None:
        with self.client.allocate(4096) as memory, self.assertRaisesRegex(TypeError, "SharedMemory objects can be neither"):
            pickle.dumps(memory)

    def test_a_closed_engine_allocates_none(self) -> None:
        self.client.close()
        with self.assertRaisesRegex(P2pError, "the engine is closed"):
            self.client.allocate(4096)

    def test_a_forked_process_shares_the_bytes_and_frees_none(self) -> None:
        program = """
import os
from flagcx_p2p import Engine
engine = Engine()
memory = engine.allocate(4096)
child = os.fork()
if child == 0:
    memory.buf[0] = 7
    view = memory.buf
    memory.close()
    del memory, view
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(memory.buf[0], memory.closed)
"""
        self.assertEqual(Program(program).end(30)[0].split(), ["7", "False"])

    def test_one_that_lives_when_the_interpreter_ends_is_no_error(self) -> None:
        program = "from flagcx_p2p import Engine; e = Engine(); m = e.allocate(4096); v = m.buf; v[0] = 1; print('end')"
        self.assertEqual(Program(program).end(30), ("end\n", ""))

    def test_a_mapped_file_is_registered_by_its_descriptor(self) -> None:
        with tempfile.TemporaryFile() as file:
            os.ftruncate(file.fileno(), 1 << 20)
            with mmap.mmap(file.fileno(), 1 << 16, offset=1 << 16) as window:
                with self.assertRaisesRegex(P2pError, "from offset 65536, not 0"):
                    self.client.register(window, fd=file.fileno())
                with self.assertRaisesRegex(P2pError, "another file|without a file"):
                    self.client.register(bytearray(100), fd=file.fileno())
                with self.assertRaisesRegex(ValueError, "offset"):
                    self.client.register(window, fd=file.fileno(), offset=-1)
                region = self.client.register(window, fd=file.fileno(), offset=1 << 16)
                window[:] = self.source
                self.connection.write(region, self.remote.address)
                self.assertEqual(self.target, self.source)
                region.close()
                del region
                gc.collect()


if __name__ == "__main__":
    unittest.main()
