"""Awaits of transfers: in several loops and threads, cancelled, timed out, with queues that are full."""

import asyncio
import contextlib
import gc
import os
import threading
import time
import unittest
import unittest.mock
from typing import Any, Awaitable, Callable

from pair import Pair
from programs import Peer

# Before the library reads its configuration: between two processes of a host only TCP needs the peer's help.
os.environ["FLAGCX_P2P_PATH"] = "tcp"

import flagcx_p2p._asyncio
from flagcx_p2p import Engine, P2pError, Piece, QueueFull, Transfer, TransferCancelled, TransferTimedOut

SIZE = 16 << 20
NOT_OVER = "not run over verbs: a device moves bytes from and to a process that is stopped"


def descriptors() -> "list[str]":
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [link for link in found if "eventfd" in link]


class WithAPeer(unittest.TestCase):
    """A peer in another process, that a test may stop: its transfers are under way until it goes on."""

    size = SIZE

    def setUp(self) -> None:
        self.peer = Peer(self.size)
        self.addCleanup(self.peer.__exit__)
        self.engine = Engine()
        self.addCleanup(self.engine.close)
        self.memory = bytearray(self.size)
        self.region = self.engine.register(self.memory)
        self.connection = self.engine.connect(self.peer.session)

    def start(self) -> Transfer:
        return self.connection.start_write([Piece(self.region, self.peer.address)])

    def stopped(self) -> Transfer:
        """A transfer that is under way until the peer goes on."""
        if os.environ["FLAGCX_P2P_FABRIC"] != "software":
            self.skipTest(NOT_OVER)
        self.peer.stop()
        return self.start()

    def expect_unused(self) -> None:
        """Nothing touches the memory: its region closes at once, and it can be resized."""
        begun = time.monotonic()
        self.region.close()
        self.assertLess(time.monotonic() - begun, 1)
        self.memory.append(0)


class Awaits(WithAPeer):
    size = 1 << 20

    def test_bytes_are_there_afterwards(self) -> None:
        async def main() -> None:
            for round in range(50):
                self.memory[:] = bytes([round]) * self.size
                await self.connection.write_async(self.region, self.peer.address)
                self.memory[:] = bytes(self.size)
                await self.connection.read_async(self.region, self.peer.address)
                self.assertEqual(self.memory, bytes([round]) * self.size)

        asyncio.run(main())

    def test_hundreds_at_the_same_time_and_one_descriptor(self) -> None:
        async def main() -> None:
            before = len(descriptors())
            size = self.size // 256
            pieces = [[Piece(self.region, self.peer.address + at, at, size)] for at in range(0, self.size, size)]
            for _ in range(4):
                await asyncio.gather(*[self.connection.write_many_async(one) for one in pieces])
                await asyncio.gather(*[self.connection.start_write(one) for one in pieces])
            self.assertLessEqual(len(descriptors()), before + 1)

        threads = threading.active_count()
        asyncio.run(main())
        self.assertEqual(threading.active_count(), threads, "no thread waits")

    def test_several_await_one_and_another_thread_waits(self) -> None:
        transfer = self.stopped()
        waited: "list[bool]" = []
        thread = threading.Thread(target=lambda: (transfer.wait(), waited.append(True)))
        thread.start()

        async def one() -> str:
            await transfer
            return "ended"

        async def main() -> None:
            tasks = [asyncio.create_task(one()) for _ in range(5)]
            await asyncio.sleep(0.1)
            self.assertFalse(any(task.done() for task in tasks))
            self.peer.go_on()
            self.assertEqual(await asyncio.gather(*tasks), ["ended"] * 5)
            await transfer  # once more

        asyncio.run(main())
        thread.join(10)
        self.assertEqual(waited, [True])

    def test_loops_in_threads_await_the_same_transfers(self) -> None:
        transfers, ends = [self.stopped() for _ in range(20)], []

        async def main() -> None:
            await asyncio.gather(*transfers)
            ends.append(True)

        threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        self.assertEqual(ends, [])
        self.peer.go_on()
        for thread in threads:
            thread.join(20)
        self.assertEqual(ends, [True] * 4)

    def test_one_that_has_ended_costs_no_turn_of_the_loop(self) -> None:
        transfer = self.start()
        transfer.wait()

        async def main() -> None:
            turns = []
            asyncio.get_running_loop().call_soon(turns.append, True)
            await transfer
            self.assertEqual(turns, [])
            await asyncio.sleep(0)
            self.assertEqual(turns, [True])

        asyncio.run(main())

    def test_without_a_loop_it_says_so(self) -> None:
        with self.assertRaisesRegex(RuntimeError, "no running event loop"):
            next(self.stopped().__await__())

    def test_bad_arguments_are_refused(self) -> None:
        async def main() -> None:
            with self.assertRaises(ValueError):
                await self.connection.write_async(self.region, self.peer.address, 1, self.size)
            with self.assertRaises(TypeError):
                await self.connection.read_async(bytearray(10), self.peer.address)  # type: ignore[arg-type]

        asyncio.run(main())

    def test_it_does_not_leak(self) -> None:
        async def main() -> None:
            for _ in range(2000):
                await self.connection.write_async(self.region[:4096], self.peer.address)
            gc.collect()
            before = len(gc.get_objects())
            for _ in range(2000):
                await self.connection.write_async(self.region[:4096], self.peer.address)
            gc.collect()
            self.assertLess(len(gc.get_objects()) - before, 50)

        asyncio.run(main())


class Cancelled(WithAPeer):
    def cancelled(self, awaits: Callable[[], Awaitable[Any]]) -> None:
        """A task is cancelled: the loop goes on meanwhile, and nothing touches the memory when the task has ended."""
        gaps: "list[float]" = []

        async def ticks() -> None:
            while True:
                begun = time.monotonic()
                await asyncio.sleep(0.001)
                gaps.append(time.monotonic() - begun)

        async def waits() -> None:
            await awaits()

        async def main() -> None:
            ticking, task = asyncio.create_task(ticks()), asyncio.create_task(waits())
            await asyncio.sleep(0.1)
            gaps.clear()
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            self.assertTrue(task.cancelled())
            ticking.cancel()

        asyncio.run(main())
        self.expect_unused()
        self.assertLess(max(gaps, default=0), 0.25, "the loop was blocked")

    def test_a_transfer(self) -> None:
        transfer = self.stopped()
        self.cancelled(lambda: transfer)
        with self.assertRaises(TransferCancelled):
            transfer.wait()

    def test_calls(self) -> None:
        self.stopped().cancel()
        self.cancelled(lambda: self.connection.write_async(self.region, self.peer.address))

    def test_reads_of_many(self) -> None:
        self.stopped().cancel()
        pieces = [Piece(self.region, self.peer.address + at, at, 4096) for at in range(0, SIZE, 1 << 16)]
        self.cancelled(lambda: self.connection.read_many_async(pieces))

    def test_again_while_it_is_being_cancelled(self) -> None:
        transfer = self.stopped()

        async def main() -> None:
            async def waits() -> None:
                await transfer

            task = asyncio.create_task(waits())
            await asyncio.sleep(0.05)
            for _ in range(5):
                task.cancel()
                await asyncio.sleep(0)
            with self.assertRaises(asyncio.CancelledError):
                await task
            self.assertTrue(transfer.done())

        asyncio.run(main())
        self.expect_unused()

    def test_one_of_several_cancels_it_for_all_but_not_what_is_shielded(self) -> None:
        transfer = self.stopped()

        async def main() -> None:
            async def waits() -> None:
                await transfer

            first, second = asyncio.create_task(waits()), asyncio.create_task(waits())
            shield = asyncio.ensure_future(transfer)
            with self.assertRaises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(shield), 0.05)
            self.assertFalse(transfer.done(), "shielded")
            first.cancel()
            with self.assertRaises(TransferCancelled) as caught:
                await second
            await asyncio.wait([first, shield], return_when=asyncio.ALL_COMPLETED)
            self.assertIsInstance(shield.exception(), TransferCancelled)
            self.assertEqual(caught.exception.id, transfer.id)

        asyncio.run(main())

    def test_timeouts(self) -> None:
        first, second = self.stopped(), self.start()

        async def main() -> None:
            begun = time.monotonic()
            with self.assertRaises(TimeoutError):
                await asyncio.wait_for(first, 0.1)
            self.assertTrue(first.done())
            with self.assertRaises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await second
            self.assertTrue(second.done())
            for call in self.connection.write_async, self.connection.read_async:
                with self.assertRaisesRegex(TransferTimedOut, "after 0.1 s") as caught:
                    await call(self.region, self.peer.address, timeout=0.1)
                self.assertIn("127.0.0.1", caught.exception.peer)
                self.assertGreater(caught.exception.id, 0)
            self.assertLess(time.monotonic() - begun, 5)

        asyncio.run(main())
        self.expect_unused()

    def test_wait_has_a_deadline_and_lets_threads_run(self) -> None:
        transfer, counted, stop = self.stopped(), [0], threading.Event()

        def count() -> None:
            while not stop.is_set():
                counted[0] += 1

        thread = threading.Thread(target=count)
        thread.start()
        try:
            before = counted[0]
            with self.assertRaisesRegex(TimeoutError, "0.5 s"):
                transfer.wait(0.5)
            self.assertGreater(counted[0] - before, 10_000, "the interpreter's lock was held")
        finally:
            stop.set()
            thread.join()
        self.assertFalse(transfer.done())
        transfer.cancel()

    def test_one_that_is_dropped_goes_on(self) -> None:
        self.stopped()

        async def main() -> None:
            coroutine = self.connection.write_async(self.region, self.peer.address)
            coroutine.send(None)
            coroutine.close()
            task = asyncio.ensure_future(self.start())
            await asyncio.sleep(0)
            with self.assertRaises(asyncio.CancelledError):
                task.cancel()
                await task
            self.peer.go_on()
            await self.connection.write_async(self.region, self.peer.address)

        asyncio.run(main())


class Full:
    """Stands for a connection: it has room for no transfer, until it is told how many more."""

    def __init__(self) -> None:
        self.room, self.tries, self.order = 0, 0, []  # type: ignore[var-annotated]

    def _timed_out(self, transfer: None, seconds: float) -> TransferTimedOut:
        return TransferTimedOut(f"after {seconds} s")

    def begin(self, asks: bool, number: int) -> "Transfer":
        self.tries += 1
        if self.room == 0:
            raise QueueFull("no room")
        self.room -= 1
        self.order.append(number)
        ended: Any = asyncio.get_running_loop().create_future()
        ended.set_result(None)
        return ended  # type: ignore[no-any-return]


class NeverBlocks(WithAPeer):
    """Queues that are full, and regions that the peer must be asked for."""

    size = 64 << 10

    def test_calls_find_room_in_their_order_and_only_one_tries(self) -> None:
        full = Full()

        async def main() -> None:
            tasks = [asyncio.create_task(flagcx_p2p._asyncio.move(full.begin, (n,), None)) for n in range(1000)]
            await asyncio.sleep(0.3)
            self.assertFalse(any(task.done() for task in tasks))
            self.assertLess(full.tries, 1000 + 100, "every 5 ms by the first, and once by each other")
            with self.assertRaises(TransferTimedOut):
                await flagcx_p2p._asyncio.move(full.begin, (-1,), 0.05)
            tasks[1].cancel()
            full.room = 10
            await asyncio.sleep(0.1)
            self.assertEqual(full.order, [0, *range(2, 11)])
            full.room = 2000
            await asyncio.wait_for(flagcx_p2p._asyncio.move(full.begin, (1000,), None), 5)
            self.assertEqual(full.order, [0, *range(2, 1001)], "none overtakes those that wait")
            self.assertEqual(len(await asyncio.gather(*tasks, return_exceptions=True)), 1000)

        threads = threading.active_count()
        asyncio.run(main())
        self.assertEqual(threading.active_count(), threads)

    def test_errors_of_both_forms_are_the_same(self) -> None:
        self.stopped()
        calls = [
            lambda: self.connection.write(self.region, self.peer.address, timeout=0.1),
            lambda: asyncio.run(self.awaited(0.1)),
        ]
        seen = []

        def told(call: "Callable[[], Any]") -> None:
            with self.assertRaises(TransferTimedOut) as caught:
                call()
            error = caught.exception
            seen.append((str(error), error.id != 0, error.piece, error.status, error.status_name, error.peer))

        for call in calls:
            told(call)
        self.assertEqual(seen[0], seen[1])

        # That of a full queue, which takes seconds to fill.
        def full() -> None:
            raise self.connection._timed_out(None, 0.1)

        told(full)
        self.peer.go_on()
        self.assertEqual([one[1] for one in seen], [True, True, False])
        for text, _, _, status, name, peer in seen:
            self.assertGreater(status, 0)
            self.assertTrue(name)
            self.assertEqual(peer, self.peer.session)
            self.assertIn(peer, text)

    async def awaited(self, timeout: "float | None") -> None:
        await self.connection.write_async(self.region, self.peer.address, timeout=timeout)

    def test_timeouts_are_checked_as_those_of_other_calls(self) -> None:
        for timeout in float("inf"), 1e300, 1e9, 1e12, 5, None:
            asyncio.run(self.awaited(timeout))
        with self.assertRaisesRegex(ValueError, "got nan"):
            asyncio.run(self.awaited(float("nan")))
        with self.assertRaises(TypeError):
            asyncio.run(self.awaited("x"))  # type: ignore[arg-type]

    def test_no_room_at_all(self) -> None:
        async def main() -> None:
            with unittest.mock.patch.object(flagcx_p2p._asyncio, "_ROOM_LIMIT", 0.1), self.assertRaises(QueueFull):
                await flagcx_p2p._asyncio.move(Full().begin, (0,), None)

        asyncio.run(main())

    def test_a_look_up_does_not_block_the_loop(self) -> None:
        self.stopped()
        unknown = self.peer.address + (1 << 40)

        async def main() -> None:
            gaps: "list[float]" = []

            async def ticks() -> None:
                while True:
                    begun = time.monotonic()
                    await asyncio.sleep(0.001)
                    gaps.append(time.monotonic() - begun)

            ticking = asyncio.create_task(ticks())
            begun = time.monotonic()
            with self.assertRaisesRegex(P2pError, "announced no region"):
                await self.connection.write_async(self.region, unknown)
            self.assertGreater(time.monotonic() - begun, 0.5, "the peer was asked, and does not answer")
            task = asyncio.ensure_future(self.connection.read_many_async([Piece(self.region, unknown)]))
            await asyncio.sleep(0.05)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            ticking.cancel()
            self.assertLess(max(gaps), 0.25)

        asyncio.run(main())


class InOneProcess(Pair):
    def test_a_region_that_comes_later_is_found(self) -> None:
        async def main() -> None:
            for _ in range(10):
                later = bytearray(4096)
                with self.server.register(later) as region:
                    await self.connection.write_async(self.local, region.address, 0, 4096)
                    self.assertEqual(later, self.source[:4096])

        asyncio.run(main())

    def test_lists(self) -> None:
        pieces = [Piece(self.local, self.remote.address + at, at, 64) for at in range(0, self.SIZE, 128)]

        async def main() -> None:
            await self.connection.write_many_async(pieces)
            for piece in pieces:
                end = piece.offset + 64
                self.assertEqual(self.target[piece.offset : end], self.source[piece.offset : end])

        asyncio.run(main())


if __name__ == "__main__":
    unittest.main()
