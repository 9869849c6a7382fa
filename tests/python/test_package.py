"""The package: two engines of one process, and the example's two processes."""

import array
import ctypes
import mmap
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from pair import Pair

import flagcx_p2p
from flagcx_p2p import Piece

EXAMPLE = pathlib.Path(__file__).parents[2] / "python" / "examples" / "move_array.py"


class Transfers(Pair):
    def test_write_and_read_move_their_window(self) -> None:
        before = bytes(self.source)
        self.connection.write(self.local, self.remote.address + 100, offset=50, size=1000)
        self.assertEqual(self.target[100:1100], before[50:1050])
        self.assertEqual(self.target[:100] + self.target[1100:], bytes(self.SIZE - 1000))
        self.connection.read(self.local, self.remote.address, size=2000)
        self.assertEqual(self.source[:2000], self.target[:2000])
        self.assertEqual(self.source[2000:], before[2000:])

    def test_the_whole_region_is_the_default(self) -> None:
        self.connection.write(self.local, self.remote.address)
        self.assertEqual(self.target, self.source)

    def test_regions_may_come_after_the_connect_and_go(self) -> None:
        for _ in range(3):
            later = bytearray(100)
            with self.server.register(later) as region:
                self.connection.write(self.local, region.address, size=100)
                self.assertEqual(later, self.source[:100])
            gone = region.address
            with self.assertRaises(flagcx_p2p.P2pError):
                # Until the peer knows, the fabric refuses it; then the look-up finds nothing.
                self.connection.write(self.local, gone, size=100)

    def test_read_only_memory_is_read_and_not_written(self) -> None:
        # Not one after the other at the same address: a peer may know the key of the one before for a moment.
        source = bytes(self.source)
        for buffer in (source, bytearray(source), memoryview(bytearray(source)).toreadonly()):
            with self.server.register(buffer, read_only=True) as remote:
                self.source[:] = bytes(self.SIZE)
                self.connection.read(self.local, remote.address)
                self.assertEqual(self.source, buffer)
                self.source[:] = b"x" * self.SIZE
                with self.assertRaisesRegex(flagcx_p2p.P2pError, "for reading only"):
                    self.connection.write(self.local, remote.address)
                self.source[:] = buffer
        with self.client.register(bytes(self.source), read_only=True) as ours:
            self.connection.write(ours, self.remote.address)
            self.assertEqual(self.target, self.source)
            with self.assertRaisesRegex(flagcx_p2p.P2pError, "for reading only"):
                self.connection.read(ours, self.remote.address)

    def test_a_read_only_buffer_cannot_move(self) -> None:
        buffer = bytearray(100)
        region = self.server.register(buffer, read_only=True)
        with self.assertRaises(BufferError):
            buffer.extend(b"x")
        region.close()
        buffer.extend(b"x")

    def test_many_pieces(self) -> None:
        pieces = [Piece(self.local, self.remote.address + self.SIZE - 64 - i * 64, i * 64, 64) for i in range(500)]
        self.connection.write_many(pieces)
        for i in range(500):
            end = self.SIZE - i * 64
            self.assertEqual(self.target[end - 64 : end], self.source[i * 64 : i * 64 + 64])
        self.connection.write_many([])

    def test_started_transfers_are_waited_for(self) -> None:
        transfers = [
            self.connection.start_write([Piece(self.local, self.remote.address + i * 100, i * 100, 100)])
            for i in range(100)
        ]
        for transfer in transfers:
            transfer.wait(10)
            self.assertTrue(transfer.done())
            transfer.wait()
        self.assertEqual(self.target[:10000], self.source[:10000])
        transfer = self.connection.start_read([Piece(self.local, self.remote.address, 0, 8)])
        while not transfer.done():
            pass

    def test_threads(self) -> None:
        def work(number: int) -> None:
            for _ in range(50):
                self.connection.write(self.local, self.remote.address + number * 512, number * 512, 512)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.target[:2048], self.source[:2048])

    def test_bad_ranges(self) -> None:
        before = bytes(self.target)
        for offset, size in [(0, self.SIZE + 1), (1, self.SIZE), (-1, 1), (0, -1)]:
            with self.assertRaises(ValueError):
                self.connection.write(self.local, self.remote.address, offset, size)
        for address in (self.remote.address + 1, 0x1000, 0, 2**64 - 1):
            with self.assertRaisesRegex(flagcx_p2p.P2pError, "no region"):
                self.connection.write(self.local, address)
            with self.assertRaisesRegex(flagcx_p2p.P2pError, "no region"):
                self.connection.read(self.local, address)
        with self.assertRaises(ValueError):
            self.connection.start_read([])
        self.assertEqual(self.target, before)

    def test_a_transfer_that_fails_says_why(self) -> None:
        failure = None
        deadline = time.monotonic() + 20
        while not isinstance(failure, flagcx_p2p.TransferFailed):
            self.assertLess(time.monotonic(), deadline)
            region = self.server.register(bytearray(64))
            self.connection.read(self.local, region.address, size=64)
            region.close()
            # The client mostly still believes in it; once it knows, this is refused and no transfer begins.
            with self.assertRaises(flagcx_p2p.P2pError) as caught:
                self.connection.read(self.local, region.address, size=64)
            failure = caught.exception
        self.assertNotEqual(str(failure), "")
        self.assertNotEqual(failure.status, 0)
        self.assertIn(failure.status_name, str(failure))
        self.assertEqual((failure.piece, failure.peer), (0, self.connection.peer))

    def test_cancel_is_harmless_when_it_is_over(self) -> None:
        transfer = self.connection.start_write([Piece(self.local, self.remote.address)])
        transfer.cancel()
        self.assertTrue(transfer.done())
        transfer.cancel()

    def test_the_connection_is_cached_and_described(self) -> None:
        info = self.connection.info()
        self.assertEqual(info.healthy_lanes, info.lanes)
        self.assertTrue(info.local and info.ours)
        self.assertEqual(info.peer, f"127.0.0.1:{self.server.port}")
        if os.environ["FLAGCX_P2P_FABRIC"] == "software":
            self.assertEqual((info.path, info.read_path, info.write_path), ("in-process",) * 3)

    def test_the_rails_of_a_connection(self) -> None:
        before, lanes = self.connection.rails(), self.connection.info().lanes
        self.assertEqual([(rail.rail, rail.state, rail.lanes, rail.healthy_lanes) for rail in before], [(0, "up", lanes, lanes)])
        self.connection.write(self.local, self.remote.address)
        (rail,) = self.connection.rails()
        self.assertIs(type(rail), flagcx_p2p.RailInfo)
        self.assertEqual(rail.written_bytes - before[0].written_bytes, self.local.size)
        self.assertEqual((rail.in_flight_bytes, rail.moved_parts, rail.pauses), (0, 0, 0))
        self.assertEqual((rail.paused, rail.last_pause, rail.last_pause_age, rail.latency), (None,) * 4)
        self.assertRegex(rail.nic, r"^\S+:\d+$")

    def test_notifications(self) -> None:
        sent = [(b"n", content) for content in (b"", b"text\0more\0", b"\0" * 256, os.urandom(5000), bytes(1 << 20), b"last")]
        for name, content in sent:
            self.connection.notify(name, content)
        received: list = []
        deadline = time.monotonic() + 10
        while len(received) < len(sent) and time.monotonic() < deadline:
            received += self.server.notifications()
        self.assertTrue(received == sent, [(name, len(content)) for name, content in received])
        self.assertEqual(self.server.notifications(), [])
        with self.assertRaises(ValueError):
            self.connection.notify(b"x" * 257)
        with self.assertRaises(ValueError):
            self.connection.notify(b"x\0")


class Memory(unittest.TestCase):
    def test_any_writable_buffer(self) -> None:
        with flagcx_p2p.Engine() as engine:
            for buffer in (bytearray(100), array.array("d", [1.0] * 10), mmap.mmap(-1, 4096), (ctypes.c_int * 7)()):
                with engine.register(buffer) as region:
                    self.assertEqual(region.size, memoryview(buffer).nbytes)
                    self.assertGreater(region.number, 0)

    def test_what_is_no_memory(self) -> None:
        with flagcx_p2p.Engine() as engine:
            for bad in (bytearray(), "text", 7):
                with self.assertRaises((TypeError, ValueError)):
                    engine.register(bad)
            with self.assertRaises(BufferError):
                engine.register(b"read only", read_only=False)
            for bad in (b"", "text", 7, memoryview(b"every other")[::2]):
                with self.assertRaises((TypeError, ValueError, BufferError)):
                    engine.register(bad, read_only=True)
            for address, size in ((0, 4096), (4096, 0), (2**64 - 10, 100)):
                with self.assertRaises(ValueError):
                    engine.register_address(address, size)

    def test_memory_that_cannot_be_accessed_is_refused_with_its_place(self) -> None:
        with tempfile.TemporaryFile() as file, flagcx_p2p.Engine() as engine:
            file.truncate(2 * mmap.PAGESIZE)
            with mmap.mmap(file.fileno(), 2 * mmap.PAGESIZE) as mapped:
                file.truncate(mmap.PAGESIZE)
                with self.assertRaisesRegex(flagcx_p2p.P2pError, f"EFAULT.* from byte {mmap.PAGESIZE} on"):
                    engine.register(mapped)
                file.truncate(2 * mmap.PAGESIZE)
                engine.register(mapped).close()

    def test_a_registered_bytearray_cannot_move(self) -> None:
        with flagcx_p2p.Engine() as engine:
            buffer = bytearray(100)
            region = engine.register(buffer)
            with self.assertRaises(BufferError):
                buffer.extend(b"x" * 100)
            region.close()
            region.close()
            buffer.extend(b"x" * 100)

    def test_the_same_buffer_twice_is_counted(self) -> None:
        with flagcx_p2p.Engine() as engine:
            buffer = bytearray(4096)
            first, second = engine.register(buffer), engine.register(buffer)
            self.assertEqual(first.number, second.number)
            first.close()
            second.close()

    def test_a_closed_engine_says_so(self) -> None:
        engine = flagcx_p2p.Engine()
        region = engine.register(bytearray(100))
        engine.close()
        engine.close()
        region.close()
        for use in (lambda: engine.port, engine.start_server, lambda: engine.connect("127.0.0.1:1")):
            with self.assertRaisesRegex(flagcx_p2p.P2pError, "closed"):
                use()


class Library(unittest.TestCase):
    def test_versions_and_metrics(self) -> None:
        self.assertRegex(flagcx_p2p.version(), r"^\d+\.\d+\.\d+$")
        info = flagcx_p2p.fabric_info()
        self.assertGreater(info.devices, 0)
        self.assertEqual(info.provider, os.environ["FLAGCX_P2P_FABRIC"])
        self.assertNotEqual(info.reason, "")

    def test_nothing_is_slow_in_an_idle_engine(self) -> None:
        with flagcx_p2p.Engine() as engine:
            self.assertEqual(engine.slow_transfers(0), [])
            self.assertIn("flagcx_p2p_connections 0", flagcx_p2p.metrics_text())
            for bad in (-1, float("nan"), float("inf")):
                with self.assertRaises(ValueError):
                    engine.slow_transfers(bad)

    def test_connecting_to_no_engine(self) -> None:
        with flagcx_p2p.Engine() as engine:
            for session in ("127.0.0.1:1", "no_colon", "", "256.256.256.256:1"):
                with self.assertRaises(flagcx_p2p.P2pError):
                    engine.connect(session)


class Example(unittest.TestCase):
    def run_it(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        # As a user runs it, without a setting of where engines listen.
        environment = {name: value for name, value in os.environ.items() if name != "FLAGCX_P2P_BIND"}
        run = subprocess.run(
            [sys.executable, *arguments],
            cwd=EXAMPLE.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=50,
        )
        print(run.stdout, run.stderr)
        return run

    def test_it_moves_an_array_between_two_processes(self) -> None:
        run = self.run_it(str(EXAMPLE))
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("moved there and back", run.stdout)

    def test_it_ends_when_one_side_fails(self) -> None:
        for failing in ("flagcx_p2p.Engine.connect = None", "move_array.receiver = print"):
            with self.subTest(failing):
                run = self.run_it("-c", f"import flagcx_p2p, move_array; {failing}; move_array.main()")
                self.assertNotEqual(run.returncode, 0)
                self.assertNotIn("moved there and back", run.stdout)


if __name__ == "__main__":
    unittest.main()
