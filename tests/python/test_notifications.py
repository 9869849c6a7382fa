"""Notifications: as an asynchronous iterator, without loss, and after their transfers."""

import array
import asyncio
import os
import random
import signal
import threading
import time
import unittest
from typing import Any, AsyncIterator, Callable, List

from pair import Pair
from programs import Peer

# Before the library reads its configuration: between two processes of a host only TCP needs the peer's help.
os.environ["FLAGCX_P2P_PATH"] = "tcp"

import flagcx_p2p
from flagcx_p2p import Engine, Notification, P2pError, Piece, Transfer, TransferCancelled, TransferFailed


class Iterated(Pair):
    def send(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            self.connection.notify(b"%d" % number, bytes(10 if number % 2 else 1000))

    def test_all_come_in_their_order(self) -> None:
        sent = 500

        async def main() -> "List[int]":
            thread = threading.Thread(target=self.send, args=(0, sent))
            thread.start()
            received = []
            async for name, content in self.server.notified():
                self.assertIn(len(content), (10, 1000))
                received.append(int(name))
                if len(received) == sent:
                    break
            thread.join()
            return received

        self.assertEqual(asyncio.run(main()), list(range(sent)))

    def test_an_arrival_wakes_the_loop(self) -> None:
        async def main() -> None:
            waits = asyncio.ensure_future(anext(self.server.notified()))
            await asyncio.sleep(0.2)
            self.assertFalse(waits.done())
            spent = time.thread_time()
            await asyncio.sleep(0.3)
            self.assertLess(time.thread_time() - spent, 0.05, "the loop looks again and again")
            threading.Timer(0.1, self.send, (7, 1)).start()
            begun = time.monotonic()
            self.assertEqual((await asyncio.wait_for(waits, 5)).name, b"7")
            self.assertLess(time.monotonic() - begun, 1)

        asyncio.run(main())

    def test_a_call_waits_for_one(self) -> None:
        begun, spent = time.monotonic(), time.thread_time()
        self.assertEqual(self.server.notifications(timeout=0.3), [])
        self.assertGreaterEqual(time.monotonic() - begun, 0.3)
        self.assertLess(time.thread_time() - spent, 0.05, "it looks again and again")
        for number in range(20):
            threading.Timer(0.01, self.send, (number, 1)).start()
            names = [name for name, _ in self.server.notifications(timeout=10)]
            self.assertEqual(names, [b"%d" % number])

    def test_any_number_of_seconds_is_a_timeout_but_nan(self) -> None:
        for timeout in float("inf"), 1e300, 1e9, 1e12, 1 << 70, None:
            with self.subTest(timeout):
                sender = threading.Timer(0.05, self.connection.notify, (b"late",))
                sender.start()
                self.assertEqual([one.name for one in self.server.notifications(timeout)], [b"late"])
                sender.join()
        for timeout in 0, -1, float("-inf"), 1e-320:
            self.assertEqual(self.server.notifications(timeout), [])
        self.connection.notify(b"kept")
        with self.assertRaisesRegex(ValueError, "a number of seconds.*got nan"):
            self.server.notifications(float("nan"))
        with self.assertRaisesRegex(TypeError, "must be real number"):
            self.server.notifications("x")  # type: ignore[arg-type]
        self.assertEqual([one.name for one in self.server.notifications(5)], [b"kept"])

    def test_a_closed_engine_ends_the_call_that_waits(self) -> None:
        threading.Timer(0.2, self.server.close).start()
        begun = time.monotonic()
        with self.assertRaisesRegex(P2pError, "closed"):
            self.server.notifications(timeout=None)
        self.assertLess(time.monotonic() - begun, 5)

    def test_each_goes_to_one_of_several_readers_in_several_loops(self) -> None:
        sent, received, ready = 400, [], threading.Barrier(3)  # type: ignore[var-annotated]

        async def reads(notifications: "AsyncIterator[Notification]") -> None:
            async for notification in notifications:
                received.append(int(notification.name))
                await asyncio.sleep(0)

        async def main() -> None:
            readers = [asyncio.create_task(reads(self.server.notified())) for _ in range(3)]
            ready.wait()
            await asyncio.gather(*readers)

        threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        ready.wait()
        self.send(0, sent)
        deadline = time.monotonic() + 10
        while len(received) < sent and time.monotonic() < deadline:
            received += [int(one.name) for one in self.server.notifications()]
        self.assertEqual(sorted(received), list(range(sent)))
        self.server.close()
        for thread in threads:
            thread.join(5)
            self.assertFalse(thread.is_alive(), "the end of the engine ends the iterators")

    def test_a_closed_engine_ends_it(self) -> None:
        async def main() -> None:
            iterator = self.server.notified()
            waits = asyncio.ensure_future(anext(iterator))
            await asyncio.sleep(0.05)
            await asyncio.get_running_loop().run_in_executor(None, self.server.close)
            with self.assertRaises(StopAsyncIteration):
                await asyncio.wait_for(waits, 5)
            async for notification in iterator:
                self.fail(f"{notification} after the end")
            with self.assertRaisesRegex(P2pError, "closed"):
                self.server.notified()

        asyncio.run(main())

    def test_cancelled_readers_lose_none(self) -> None:
        sent, received = 600, []

        async def one() -> None:
            received.append(int((await anext(self.server.notified())).name))

        async def main() -> None:
            thread = threading.Thread(target=self.send, args=(0, sent))
            thread.start()
            deadline = time.monotonic() + 20
            while len(received) < sent and time.monotonic() < deadline:
                tasks = [asyncio.ensure_future(one()) for _ in range(4)]
                await asyncio.sleep(random.uniform(0, 0.0005))
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            thread.join()

        asyncio.run(main())
        self.assertEqual(received, list(range(sent)))

    def test_ctrl_c_loses_none(self) -> None:
        sent, received, interrupts = 300, [], 0

        async def main() -> None:
            async for notification in self.server.notified():
                received.append(int(notification.name))
                if len(received) == sent:
                    return

        thread = threading.Thread(target=lambda: [(self.send(n, 1), time.sleep(0.002)) for n in range(sent)])
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        timer = threading.Thread(target=lambda: [(time.sleep(0.04), os.kill(os.getpid(), signal.SIGINT)) for _ in range(10)])
        thread.start()
        try:
            timer.start()
            while len(received) < sent:
                try:
                    asyncio.run(main())
                except KeyboardInterrupt:
                    interrupts += 1
        finally:
            while timer.is_alive():
                try:
                    timer.join()
                except KeyboardInterrupt:
                    pass
            signal.signal(signal.SIGINT, before)
            thread.join()
        self.assertEqual(received, list(range(sent)))
        self.assertGreater(interrupts, 3)


class AfterTransfers(Pair):
    def pieces(self) -> "List[Piece]":
        return [Piece(self.local, self.remote.address)]

    def arrived(self, seconds: float = 10) -> "List[Notification]":
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if taken := self.server.notifications():
                return taken
            time.sleep(0.001)
        return []

    def test_it_comes_when_the_bytes_are_there(self) -> None:
        prepared = self.connection.prepare("write", self.pieces())
        for round in range(100):
            self.source[:] = os.urandom(self.SIZE)
            note = (b"round", b"%d" % round)
            if round % 2:
                transfer = self.connection.start_write(self.pieces(), notify=note)
            else:
                transfer = prepared.start(notify=note)
            self.assertEqual([(one.name, one.content.rstrip(b"\0")) for one in self.arrived()], [note])
            self.assertEqual(self.target, self.source)
            transfer.wait()
        deadline = time.monotonic() + 5
        while transfer.notified is None and time.monotonic() < deadline:
            time.sleep(0.001)
        self.assertIs(transfer.notified, True)
        self.assertIsNone(self.connection.start_read(self.pieces()).notified)

    def test_they_come_in_the_order_of_the_ends(self) -> None:
        for number in range(50):
            transfer = self.connection.start_write(self.pieces(), notify=(b"%d" % number, b""))
            while transfer.notified is None:
                time.sleep(0.0002)
        names: "List[bytes]" = []
        while len(names) < 50:
            names += [name for name, _ in self.server.notifications(timeout=10)]
        self.assertEqual(names, [b"%d" % number for number in range(50)])

    def test_no_caller_needs_to_wait_and_there_is_one_thread(self) -> None:
        before = len(os.listdir("/proc/self/task"))
        for number in range(200):
            self.connection.start_write(self.pieces(), notify=(b"%d" % number, b""))
        names: "List[int]" = []
        while len(names) < 200:
            arrived = self.arrived()
            self.assertTrue(arrived, f"{len(names)} have come")
            names += [int(one.name) for one in arrived]
        self.assertEqual(sorted(names), list(range(200)))
        self.assertLessEqual(len(os.listdir("/proc/self/task")) - before, 1)

    def test_sizes_are_checked_by_the_call(self) -> None:
        for send in self.ways():
            with self.assertRaisesRegex(P2pError, "at most"):
                send((b"", bytes(64 << 20)))
        self.assertEqual(self.target, bytes(self.SIZE), "nothing was started")

    def ways(self) -> "List[Callable[[Any], Any]]":
        """The two of sending a notification."""
        return [
            lambda note: self.connection.notify(*note),
            lambda note: self.connection.start_write(self.pieces(), notify=note).wait(),
        ]

    def test_both_ways_refuse_the_same_with_the_same_text(self) -> None:
        for note, kind, text in (
            ((b"x" * 257, b""), ValueError, "at most 256 bytes, got 257"),
            ((b"a\0b", b""), ValueError, "no NUL"),
            (("text", b""), TypeError, "name of a notification is bytes.*got str.*encode"),
            ((b"name", "text"), TypeError, "content of a notification is bytes.*got str"),
            ((b"name", 7), TypeError, "got int"),
            (([1, 2], b""), TypeError, "got list"),
        ):
            for send in self.ways():
                with self.subTest(note=note), self.assertRaisesRegex(kind, text):
                    send(note)
        for pair, kind in ((b"", b"", b""), ValueError), ((b"",), ValueError), (b"ab", TypeError), (5, TypeError):
            with self.subTest(pair=pair), self.assertRaisesRegex(kind, "a pair"):
                self.connection.start_write(self.pieces(), notify=pair)
        self.assertEqual(self.target, bytes(self.SIZE), "nothing was started")
        self.assertEqual(self.server.notifications(), [])

    def test_both_ways_take_any_buffer(self) -> None:
        for send in self.ways():
            send((bytearray(b"name"), memoryview(b"c.o.n.t.e.n.t")[::2]))
            send((array.array("B", b"name"), bytearray(b"content")))
        found: "List[Any]" = []
        while len(found) < 4:
            arrived = self.arrived()
            self.assertTrue(arrived)
            found += arrived
        self.assertEqual(found, [(b"name", b"content")] * 4)

    def test_those_of_transfers_that_are_done_come_before_the_end(self) -> None:
        for _ in range(20):
            with Engine() as engine:
                region = engine.register(self.source)
                connection = engine.connect(self.server.session)
                connection.start_write([Piece(region, self.remote.address)], notify=(b"last", b"")).wait()
            self.assertEqual([one.name for one in self.arrived()], [b"last"])


class WithAStoppedPeer(unittest.TestCase):
    SIZE = 16 << 20

    def setUp(self) -> None:
        if os.environ["FLAGCX_P2P_FABRIC"] != "software":
            self.skipTest("not run over verbs: a device moves bytes from and to a process that is stopped")
        self.peer = Peer(self.SIZE)
        self.addCleanup(self.peer.__exit__)
        self.engine = Engine()
        self.addCleanup(self.engine.close)
        self.region = self.engine.register(bytearray(self.SIZE))
        self.connection = self.engine.connect(self.peer.session)
        self.peer.stop()
        self.transfer = self.connection.start_write([Piece(self.region, self.peer.address)], notify=(b"name", b""))

    def settled(self) -> "bool | None":
        deadline = time.monotonic() + 5
        while self.transfer.notified is None and time.monotonic() < deadline:
            time.sleep(0.001)
        return self.transfer.notified

    def test_of_a_cancelled_transfer_none_is_sent(self) -> None:
        self.assertIsNone(self.transfer.notified)
        self.transfer.cancel()
        with self.assertRaises(TransferCancelled):
            self.transfer.wait()
        self.assertIs(self.settled(), False)

    def test_of_a_failed_transfer_none_is_sent(self) -> None:
        self.peer.program.status = -signal.SIGKILL
        self.peer.program.process.kill()
        with self.assertRaises(TransferFailed):
            self.transfer.wait(20)
        self.assertIs(self.settled(), False)

    def test_the_end_of_the_engine_does_not_wait_for_it(self) -> None:
        begun = time.monotonic()
        self.engine.close()
        self.assertLess(time.monotonic() - begun, 4)
        self.assertIs(self.settled(), False)


class PeersThatReadNone(Pair):
    """A peer with a full queue, and another one."""

    #: More than the queue and the sockets hold.
    NOTES, BYTES = 700, 32 << 10

    def setUp(self) -> None:
        super().setUp()
        self.full = Engine(settings={"FLAGCX_P2P_NOTIF_QUEUE": "16"})
        self.addCleanup(self.full.close)
        self.memory = bytearray(self.SIZE)
        self.place = self.full.register(self.memory)
        self.full.start_server()
        self.to_full = self.client.connect(self.full.session)

    def fill(self) -> "List[Transfer]":
        pieces = [Piece(self.local, self.place.address, 0, 16)]
        content = bytes(self.BYTES)
        transfers = [self.to_full.start_write(pieces, notify=(b"%d" % n, content)) for n in range(self.NOTES)]
        for transfer in transfers:
            transfer.wait()
        self.assertEqual(self.memory[:16], self.source[:16], "the bytes do not wait")
        return transfers

    @staticmethod
    def dropped() -> int:
        lines = flagcx_p2p.metrics_text().splitlines()
        return sum(int(line.rsplit(" ", 1)[1]) for line in lines if 'notification_dropped"' in line)

    def test_they_delay_no_others_and_get_theirs_once_they_read(self) -> None:
        transfers, begun = self.fill(), time.monotonic()
        self.connection.start_write([Piece(self.local, self.remote.address)], notify=(b"other", b""))
        while not self.server.notifications():
            self.assertLess(time.monotonic() - begun, 3)
        self.assertIsNone(transfers[-1].notified, "its peer holds fewer")
        names: "List[int]" = []
        while len(names) < self.NOTES:
            names += [int(one.name) for one in self.full.notifications()]
            self.assertLess(time.monotonic() - begun, 20)
        # They come in the order in which the transfers ended: neighbours end on different lanes.
        self.assertEqual(sorted(names), list(range(self.NOTES)))

    def test_one_that_cannot_be_sent_is_an_event(self) -> None:
        before, begun, transfers = self.dropped(), time.monotonic(), self.fill()
        while transfers[-1].notified is None:
            self.assertLess(time.monotonic() - begun, 15)
            time.sleep(0.01)
        self.assertIs(transfers[-1].notified, False)
        self.assertGreater(time.monotonic() - begun, 4.5, "its peer had 5 s")
        self.assertGreater(self.dropped(), before)


if __name__ == "__main__":
    unittest.main()
