"""Registered memory: what may be registered, what keeps it, and parts of it."""

import array
import ctypes
import gc
import mmap
import threading
import time
import unittest
import weakref
from typing import Any

from pair import Pair
from programs import PAIR, Program

import flagcx_p2p
from flagcx_p2p import Engine, P2pError


class Owner(bytearray):
    """Memory, the end of which can be seen."""


def take_until(engine: Engine, end: threading.Event) -> None:
    """Takes what notifications come, from soon on."""
    while not end.wait(0.05):
        engine.notifications()


class Buffers(Pair):
    def check_moves(self, buffer: Any, writable: bool) -> None:
        """It is registered where it is, with all its bytes, and they move."""
        expected = memoryview(buffer).cast("B") if memoryview(buffer).format != "B" else memoryview(buffer)
        with self.client.register(buffer) as region:
            self.assertEqual(region.size, len(expected))
            self.connection.write(region, self.remote.address)
            self.assertEqual(self.target[: region.size], expected)
            if writable:
                self.target[: region.size] = bytes(range(region.size))
                self.connection.read(region, self.remote.address)
                self.assertEqual(expected, self.target[: region.size])
            else:
                with self.assertRaisesRegex(P2pError, "read-only|reading only"):
                    self.connection.read(region, self.remote.address)

    def test_any_buffer_is_registered_where_it_is(self) -> None:
        with mmap.mmap(-1, 100) as mapping:
            mapping[:] = bytes(range(100, 200))
            for buffer in (bytearray(b"some bytes"), array.array("d", range(10)), memoryview(bytearray(200))[50:150], mapping):
                with self.subTest(type(buffer)):
                    self.check_moves(buffer, writable=True)
        self.check_moves((ctypes.c_uint16 * 20)(*range(20)), writable=True)

    def test_what_is_read_only_is_read_only_for_peers_too(self) -> None:
        for buffer in (b"constant bytes" * 10, memoryview(bytearray(100)).toreadonly()):
            self.check_moves(buffer, writable=False)
            with self.server.register(buffer) as region:
                self.connection.read(self.local, region.address, size=region.size)
                self.assertEqual(self.source[: region.size], buffer)
                with self.assertRaisesRegex(P2pError, "for reading only"):
                    self.connection.write(self.local, region.address, size=region.size)
        with self.assertRaisesRegex(BufferError, "register a writable copy"):
            self.client.register(b"constant", read_only=False)

    def test_writable_memory_may_be_registered_for_reading_only(self) -> None:
        with self.server.register(bytearray(b"shown"), read_only=True) as region:
            self.connection.read(self.local, region.address, size=5)
            self.assertEqual(self.source[:5], b"shown")
            with self.assertRaisesRegex(P2pError, "for reading only"):
                self.connection.write(self.local, region.address, size=5)

    def test_what_peers_are_not_told_of_they_do_not_find(self) -> None:
        with self.server.register(bytearray(100), announced=False) as region, self.assertRaisesRegex(P2pError, "no region"):
            self.connection.write(self.local, region.address, size=100)

    def test_memory_with_gaps_is_refused_with_the_remedy(self) -> None:
        with self.assertRaisesRegex(BufferError, "not contiguous.* Register a contiguous copy"):
            self.client.register(memoryview(self.target)[::2])
        with self.assertRaisesRegex(BufferError, "not contiguous"):
            self.client.register(memoryview(self.target)[::-1])

    def test_what_has_no_bytes_is_refused(self) -> None:
        for empty in (b"", bytearray(), memoryview(b"abc")[1:1], array.array("I")):
            with self.assertRaisesRegex(ValueError, "is empty"):
                self.client.register(empty)
        for other in (None, 5, "text", object(), [1, 2, 3], Pair):
            with self.assertRaisesRegex(TypeError, "has no memory that can be registered.*register_address"):
                self.client.register(other)
        view = memoryview(bytearray(10))
        view.release()
        with self.assertRaisesRegex(ValueError, "released"):
            self.client.register(view)
        with self.assertRaisesRegex(BufferError, "references to Python objects"):
            self.client.register((ctypes.py_object * 3)())

    def test_an_address_is_checked(self) -> None:
        for address, size in ((-1, 10), (1 << 64, 10), (4096, -1)):
            with self.assertRaisesRegex(ValueError, "out of range"):
                self.client.register_address(address, size)
        for address, size in ((0, 10), (4096, 0), ((1 << 64) - 1, 10)):
            with self.assertRaisesRegex(ValueError, "no range of memory"):
                self.client.register_address(address, size)
        with mmap.mmap(-1, 4096) as mapping:
            address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        with self.assertRaisesRegex(P2pError, f"{address:#x}"):
            self.client.register_address(address, 4096, device=False)

    def test_an_offset_is_one_of_a_file(self) -> None:
        with self.assertRaisesRegex(ValueError, "offset=5 .*fd"):
            self.client.register(bytearray(10), offset=5)
        with self.assertRaisesRegex(ValueError, "fd=.*out of range"):
            self.client.register(bytearray(10), fd=2**40)
        with self.assertRaisesRegex(TypeError, "whole number"):
            self.client.register(bytearray(10), fd="file")  # type: ignore[arg-type]

    def test_a_closed_engine_registers_nothing_and_keeps_nothing(self) -> None:
        owner = Owner(100)
        self.client.close()
        with self.assertRaisesRegex(P2pError, "the engine is closed"):
            self.client.register(owner)
        owner.append(1)


class Lifetimes(Pair):
    def test_a_registered_buffer_cannot_be_resized(self) -> None:
        buffer = bytearray(100)
        region = self.client.register(buffer)
        with self.assertRaises(BufferError):
            buffer.append(1)
        region.close()
        buffer.append(1)
        with mmap.mmap(-1, 4096) as mapping:
            region = self.client.register(mapping)
            self.assertRaises(BufferError, mapping.close)
            self.assertRaises(BufferError, mapping.resize, 8192)
            region.close()
        numbers = array.array("d", range(10))
        view = memoryview(numbers)
        region = self.client.register(view)
        self.assertRaises(BufferError, numbers.append, 1.0)
        self.assertRaises(BufferError, view.release)
        self.connection.write(region, self.remote.address)
        self.assertEqual(self.target[:80], numbers.tobytes())
        region.close()
        view.release()
        numbers.append(1.0)

    def test_what_owns_the_memory_lives_while_it_is_registered(self) -> None:
        owner = Owner(b"o" * 100)
        told = weakref.ref(owner)
        region = self.client.register(owner)
        del owner
        gc.collect()
        self.assertIsNotNone(told())
        self.connection.write(region, self.remote.address)
        self.assertEqual(self.target[:100], b"o" * 100)
        region.close()
        self.assertIsNone(told())
        self.assertTrue(region.closed)
        region.close()
        with self.assertRaisesRegex(P2pError, "has been closed"):
            self.connection.write(region, self.remote.address)

    def test_a_region_that_is_dropped_stays_registered(self) -> None:
        owner = Owner(100)
        told, address = weakref.ref(owner), self.server.register(owner).address
        del owner
        gc.collect()
        self.connection.write(self.local, address, size=100)
        self.assertEqual(told(), self.source[:100])
        self.server.close()
        self.assertIsNone(told())

    def test_a_range_that_is_registered_twice_is_registered_until_both_are_closed(self) -> None:
        owner = Owner(100)
        told = weakref.ref(owner)
        one, other = self.server.register(owner), self.server.register(memoryview(owner))
        self.assertEqual(one.number, other.number)
        one.close()
        self.connection.write(self.local, other.address, size=100)
        self.assertEqual(owner, self.source[:100])
        self.assertTrue(one.closed and not other.closed)
        del owner
        other.close()
        self.assertIsNone(told())

    def test_one_start_has_one_length(self) -> None:
        whole = bytearray(100)
        with self.client.register(whole), self.assertRaisesRegex(P2pError, "100 bytes already, 50 were asked for"):
            self.client.register(memoryview(whole)[:50])
        whole.append(1)

    def test_closing_waits_for_the_transfers_that_use_it(self) -> None:
        size = 64 << 20
        source, target = bytearray(b"w" * size), bytearray(size)
        far = self.server.register(target)
        for _ in range(5):
            region = self.client.register(source)
            transfer = self.connection.start_write([flagcx_p2p.Piece(region, far.address)])
            region.close()
            self.assertTrue(transfer.done())
            transfer.wait()
        self.assertEqual(target, source)

    def test_several_threads_close_one_region(self) -> None:
        for _ in range(20):
            owner = bytearray(4096)
            region = self.client.register(owner)
            threads = [threading.Thread(target=region.close) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            owner.append(1)

    def test_a_region_that_is_closed_while_its_engine_is_being_closed_is_not_written_any_more(self) -> None:
        # A peer that takes no notifications has the end of the engine wait, while transfers go on.
        full, engine = Engine(settings={"FLAGCX_P2P_NOTIF_QUEUE": "16"}), Engine()
        self.addCleanup(full.close)
        place, small, large = full.register(bytearray(16)), engine.register(bytearray(16)), bytearray(64 << 20)
        full.start_server()
        region, far = engine.register(bytearray(len(large))), self.server.register(large)
        to_full, connection = engine.connect(full.session), engine.connect(self.server.session)
        notified = [to_full.start_write([flagcx_p2p.Piece(small, place.address)], notify=(b"n", bytes(32 << 10))) for _ in range(700)]
        for transfer in notified:
            transfer.wait()
        told = threading.Event()
        transfers = [connection.start_read([flagcx_p2p.Piece(region, far.address)]) for _ in range(64)]
        closer = threading.Thread(target=engine.close)
        closer.start()
        while not engine.closed:
            time.sleep(0.0005)
        self.assertFalse(transfers[-1].done(), "nothing is under way")
        reader = threading.Thread(target=lambda: take_until(full, told))
        reader.start()
        region.close()
        pending = [transfer for transfer in transfers if not transfer.done()]
        told.set()
        closer.join()
        reader.join()
        self.assertEqual(pending, [])

    def test_an_owner_may_use_the_engine_when_it_ends(self) -> None:
        engine = Engine()
        seen: "list[Any]" = []

        class Last(bytearray):
            def __del__(self) -> None:
                try:
                    with engine.register(bytearray(10)) as region:
                        seen.append(region.size)
                except P2pError as error:
                    seen.append(str(error))

        engine.register(Last(100)).close()
        self.assertEqual(seen, [10])
        engine.register(Last(100))
        engine.close()
        self.assertEqual(seen[1], "the engine is closed")

    def test_an_owner_that_refers_to_its_engine_lives_until_that_is_closed(self) -> None:
        program = """
import gc, weakref
from flagcx_p2p import Engine
class Owner(bytearray): pass
def make():
    engine, owner = Engine(), Owner(100)
    owner.engine = engine
    engine.register(owner)
    return weakref.ref(owner)
lives = make()
gc.collect()
print(lives() is not None)
closed = make()
closed().engine.close()
gc.collect()
print(closed() is None)
"""
        self.assertEqual(Program(program).end(30), ("True\nTrue\n", ""))

    def test_a_forked_process_may_drop_and_close_what_it_has_of_its_parent(self) -> None:
        program = PAIR + """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # since 3.12, of every fork in a process with threads
child = os.fork()
if child == 0:
    local.close()
    del local, near
    gc.collect()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
connection.write(local, remote.address)
print(far == near, local.closed)
"""
        self.assertEqual(Program(program).end(30), ("True False\n", ""))


class Many(Pair):
    def test_they_are_registered_in_order(self) -> None:
        buffers = [bytearray([index]) * (index + 1) for index in range(50)]
        regions = self.client.register_many(iter(buffers))
        self.assertEqual([region.size for region in regions], list(range(1, 51)))
        for index, region in enumerate(regions):
            self.connection.write(region, self.remote.address)
            self.assertEqual(self.target[: index + 1], buffers[index])
        self.assertEqual(self.client.register_many([]), [])
        shown = self.client.register_many((b"abc", bytearray(5)), announced=False, read_only=True)
        self.assertEqual([region.size for region in shown], [3, 5])

    def check_none(self, buffers: "list[Any]", kind: type, text: str) -> None:
        with self.assertRaisesRegex(kind, f"{text}.*none was registered"):
            self.client.register_many(buffers)
        for buffer in buffers:
            if isinstance(buffer, bytearray):
                buffer.append(1)

    def test_all_are_registered_or_none(self) -> None:
        first, second = bytearray(100), bytearray(100)
        self.check_none([first, second, memoryview(self.target)[::2]], BufferError, "buffer 2: .*not contiguous")
        self.check_none([first, second, "text"], TypeError, "buffer 2: ")
        self.check_none([b"", first], ValueError, "buffer 0: ")
        # Of these the engine itself refuses the last one.
        whole = bytearray(1000)
        self.check_none([first, memoryview(whole), memoryview(whole)[:10]], P2pError, "buffer 2: .*1000 bytes already")
        with self.client.register(memoryview(whole)[:10]) as part:
            self.assertEqual(part.size, 10)
        with self.assertRaisesRegex(TypeError, r"pass its values\(\)"):
            self.client.register_many({"weight": first})
        with self.assertRaisesRegex(TypeError, "buffer 0"):
            self.client.register_many(b"abc")

    def test_a_thousand_take_little_time(self) -> None:
        buffers = [bytearray(4096) for _ in range(1000)]
        started = time.perf_counter()
        regions = self.client.register_many(buffers)
        took = time.perf_counter() - started
        for region in regions:
            region.close()
        print(f"1,000 buffers: registered in {took * 1e3:.1f} ms, closed in {(time.perf_counter() - started - took) * 1e3:.1f} ms")
        self.assertLess(took, 2)


class Slices(Pair):
    def test_a_slice_is_a_range_by_the_rules_of_python(self) -> None:
        size, numbers = self.SIZE, range(self.SIZE)
        for start, stop in ((10, 20), (-10, None), (None, -10), (-20, -10), (None, None), (5, 5), (20, 10), (0, size * 2), (-size * 2, 5)):
            part, expected = self.local[start:stop], numbers[start:stop]
            self.assertEqual((part.size, len(part)), (len(expected), len(expected)))
            self.assertEqual(part.address, self.local.address + part.offset)
            if expected:
                self.assertEqual(part.offset, expected[0])
            self.assertIs(part.region, self.local)
        self.assertEqual(len(self.local), size)

    def test_a_slice_is_sliced_again(self) -> None:
        inner = self.local[100:200][-50:][10:20]
        self.assertEqual((inner.offset, inner.size, inner.address), (160, 10, self.local.address + 160))
        self.assertRegex(repr(inner), "RegionSlice")

    def test_what_is_no_range_is_refused(self) -> None:
        for part in (self.local, self.local[10:]):
            with self.assertRaisesRegex(TypeError, "a step of 2"):
                part[::2]
            with self.assertRaisesRegex(TypeError, "a step of -1"):
                part[::-1]
            for index in (3, -1, "a", (1, 2), None):
                with self.assertRaisesRegex(TypeError, "ranges, not elements"):
                    part[index]  # type: ignore[index]
            with self.assertRaises(TypeError):
                list(part)  # type: ignore[call-overload]
            with self.assertRaises(ValueError):
                part[::0]

    def test_a_slice_moves_its_bytes_and_keeps_its_region(self) -> None:
        part = self.client.register(Owner(b"abcdefgh" * 10))[8:-8]
        self.connection.write(part[8:16], self.remote.address + 5)
        self.assertEqual(self.target[:20], bytes(5) + b"abcdefgh" + bytes(7))
        self.connection.write(part[5:5], self.remote.address)
        with self.assertRaisesRegex(ValueError, "not inside"):
            self.connection.write(part, self.remote.address, offset=60, size=10)
        part.region.close()
        with self.assertRaisesRegex(P2pError, "has been closed"):
            self.connection.write(part, self.remote.address)


if __name__ == "__main__":
    unittest.main()
