"""Ctrl-C, and other signal handlers that raise, at any moment of any call."""

import contextlib
import ctypes
import itertools
import os
import random
import signal
import socket
import threading
import time
import unittest
from typing import Any, Callable, Dict, Iterator

from pair import Pair
from programs import Peer, Program

# Before the engine reads its configuration: between two processes of a host only TCP needs the peer's help.
os.environ["FLAGCX_P2P_PATH"] = "tcp"

import flagcx_p2p
from flagcx_p2p import Connection, Engine, Piece, Region

SIZE = 64 << 20


@contextlib.contextmanager
def interrupts(first: float, every: float = 0.0) -> Iterator[None]:
    """KeyboardInterrupt after `first` seconds, and again after `every`."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, first, every)
    try:
        yield
    finally:
        # The last one may come in between.
        with contextlib.suppress(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


#: A peer that takes notifications until the one that is named "last", and prints each.
_TAKES = """
import sys
from flagcx_p2p import Engine
with Engine() as engine:
    engine.start_server()
    print(engine.session, flush=True)
    name = b""
    while name != b"last":
        for name, content in engine.notifications(30):
            text = f"{max(content[:1], default=0)}*{len(content)}" if content == content[:1] * len(content) else "mixed"
            print(name.rstrip(b"\\0").decode(), text if name != b"last" else "", flush=True)
    sys.stdin.read()
"""


class Notified(Peer):
    """Another process that takes notifications."""

    def __init__(self) -> None:
        self.program = Program(_TAKES)
        assert self.program.process.stdout is not None
        self.session = self.program.process.stdout.readline().strip()

    def received(self) -> "list[tuple[str, str]]":
        """All before the last, with what their contents are."""
        assert self.program.process.stdout is not None
        lines = iter(self.program.process.stdout.readline, "")
        found = (line.strip().partition(" ") for line in lines)
        return [(name, text) for name, _, text in itertools.takewhile(lambda one: one[0] != "last", found)]


class AStoppedPeer(unittest.TestCase):
    """Its transfers last until their deadline of 30 s."""

    #: Waits that leave nothing under way.
    CALLS: Dict[str, Callable[[Connection, Region, int], Any]] = {
        "write": lambda peer, region, address: peer.write(region, address),
        "write_many": lambda peer, region, address: peer.write_many([Piece(region, address, 0, SIZE)]),
        "read": lambda peer, region, address: peer.read(region, address),
        "read_many": lambda peer, region, address: peer.read_many([Piece(region, address, 0, SIZE)]),
    }

    def setUp(self) -> None:
        if os.environ["FLAGCX_P2P_FABRIC"] != "software":
            self.skipTest("not run over verbs: a device moves bytes from and to a process that is stopped")
        self.peer = self.enterContext(Peer(SIZE))
        self.engine = Engine()
        self.addCleanup(self.engine.close)
        self.memory = bytearray(SIZE)
        self.connection = self.engine.connect(self.peer.session)

    def interrupted(self, call: Callable[[], Any], seconds: float = 0.3) -> None:
        begun = time.monotonic()
        with interrupts(seconds), self.assertRaises(KeyboardInterrupt):
            call()
        self.assertLess(time.monotonic() - begun, seconds + 2.7, "a turn of 0.2 s, the end of the transfer")

    def test_ctrl_c_ends_every_call_that_waits_and_its_transfer(self) -> None:
        for name, call in self.CALLS.items():
            with self.subTest(name):
                region = self.engine.register(self.memory)
                self.peer.stop()
                self.interrupted(lambda: call(self.connection, region, self.peer.address))
                begun = time.monotonic()
                region.close()
                self.assertLess(time.monotonic() - begun, 1, "nothing uses the region")
                self.memory.append(0)  # nor its memory
                self.memory.pop()
                self.peer.go_on()
                self.bytes_arrive()

    def test_ctrl_c_ends_a_connect_to_a_peer_that_is_silent(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            self.interrupted(lambda: self.engine.connect(f"127.0.0.1:{silent.getsockname()[1]}"))
        self.bytes_arrive()

    def test_a_started_transfer_goes_on_after_ctrl_c(self) -> None:
        with self.engine.register(self.memory) as region:
            self.memory[:4], self.memory[-4:] = b"head", b"tail"
            self.peer.stop()
            transfer = self.connection.start_write([Piece(region, self.peer.address)])
            self.interrupted(transfer.wait)
            self.assertFalse(transfer.done())
            slow = self.engine.slow_transfers(0.1)
            self.assertEqual([(found.id, found.path) for found in slow], [(transfer.id, "tcp")])
            self.assertNotEqual(transfer.id, 0)
            self.peer.go_on()
            transfer.wait(20)
            self.memory[:] = bytes(SIZE)
            self.connection.read(region, self.peer.address)
            self.assertEqual((bytes(self.memory[:4]), bytes(self.memory[-4:])), (b"head", b"tail"))

    def test_ctrl_c_ends_a_close_of_a_region_that_is_in_use(self) -> None:
        region = self.engine.register(self.memory)
        self.peer.stop()
        transfer = self.connection.start_write([Piece(region, self.peer.address)])
        self.interrupted(region.close)
        self.assertFalse(region.closed)
        self.assertFalse(transfer.done())
        with self.assertRaises(BufferError):
            self.memory.append(0)
        with contextlib.suppress(KeyboardInterrupt), region:
            self.interrupted(region.__exit__)
            self.peer.go_on()
        self.assertTrue(region.closed)
        transfer.wait(20)
        self.memory.append(0)
        self.memory.pop()

    def test_ctrl_c_ends_a_notification_that_is_sent_as_a_whole_or_not_at_all(self) -> None:
        for size in (10, 1000, 1 << 20):
            with self.subTest(size), Notified() as peer:
                connection = self.engine.connect(peer.session)
                peer.stop()
                sent = 0

                def send() -> None:
                    nonlocal sent
                    while True:
                        connection.notify(b"%d" % sent, bytes([sent % 256]) * size)
                        sent += 1

                # Two seconds of room, at most.
                self.interrupted(send, 2.0)
                self.interrupted(send, 0.3)
                peer.go_on()
                connection.notify(b"last")
                received = peer.received()
                # What was interrupted is whole, or is not there.
                self.assertGreater(sent, 0)
                names = [int(name) for name, _ in received]
                self.assertEqual(sorted(set(names)), list(range(len(set(names)))))
                self.assertIn(len(names) - sent, (0,) if size <= 1000 else (0, 1, 2), "none is lost or sent twice")
                for name, digest in received:
                    self.assertEqual(digest, f"{int(name) % 256}*{size}")
                connection.close()

    def test_a_notification_that_no_peer_takes_is_refused_and_the_next_one_is_sent(self) -> None:
        with Notified() as peer:
            connection = self.engine.connect(peer.session)
            peer.stop()
            with self.assertRaisesRegex(flagcx_p2p.P2pError, f"{peer.session}.*none for 5 s.*Nothing was sent"):
                for number in range(1 << 20):
                    connection.notify(b"%d" % number, bytes([number % 256]) * 2000)
            peer.go_on()
            connection.notify(b"last")
            self.assertEqual([int(name) for name, _ in peer.received()], list(range(number)))

    def bytes_arrive(self) -> None:
        """Once the lanes have been rebuilt, which takes a moment."""
        sent = os.urandom(4096)
        with self.engine.register(bytearray(sent)) as source, self.engine.register(bytearray(4096)) as target:
            deadline = time.monotonic() + 20
            while True:
                try:
                    self.connection.write(source, self.peer.address)
                    break
                except flagcx_p2p.P2pError:
                    self.assertLess(time.monotonic(), deadline)
            self.connection.read(target, self.peer.address, size=4096)
            self.assertEqual(ctypes.string_at(target.address, 4096), sent)


    def test_a_timeout_stops_the_transfer(self) -> None:
        for name, call in {
            "write": lambda region: self.connection.write(region, self.peer.address, timeout=0.3),
            "read": lambda region: self.connection.read(region, self.peer.address, timeout=0.3),
            "write_many": lambda region: self.connection.write_many([Piece(region, self.peer.address)], timeout=0.3),
            "prepared": lambda region: self.connection.prepare("read", [Piece(region, self.peer.address)]).run(timeout=0.3),
        }.items():
            with self.subTest(name):
                region = self.engine.register(self.memory)
                self.peer.stop()
                begun = time.monotonic()
                with self.assertRaisesRegex(flagcx_p2p.TransferTimedOut, "not over after 0.3 s") as caught:
                    call(region)
                self.assertLess(time.monotonic() - begun, 3)
                error = caught.exception
                self.assertNotEqual(error.id, 0)
                self.assertEqual((error.piece, error.peer), (0, self.peer.session))
                self.assertEqual(self.engine.slow_transfers(0), [])
                before = bytes(self.memory[:4096])
                region.close()
                self.peer.go_on()
                self.bytes_arrive()
                self.assertEqual(self.memory[:4096], before, "nothing touches the memory afterwards")

    def test_a_wait_that_times_out_leaves_the_transfer(self) -> None:
        with self.engine.register(self.memory) as region:
            self.peer.stop()
            transfer = self.connection.start_write([Piece(region, self.peer.address)])
            with self.assertRaises(TimeoutError):
                transfer.wait(0.1)
            self.assertFalse(transfer.done())
            self.peer.go_on()
            transfer.wait(20)
            self.assertTrue(transfer.done())

    def test_a_peer_that_is_killed_ends_the_waits_with_all_that_is_known(self) -> None:
        with self.engine.register(self.memory) as region:
            self.peer.stop()
            transfer = self.connection.start_write([Piece(region, self.peer.address, 0, 8), Piece(region, self.peer.address)])
            killer = threading.Timer(0.3, self.peer.kill)
            killer.start()
            with self.assertRaises(flagcx_p2p.TransferFailed) as caught:
                transfer.wait(20)
            killer.join()
            error = caught.exception
            self.assertEqual((error.id, error.peer), (transfer.id, self.peer.session))
            self.assertIn(error.piece, (0, 1))
            self.assertNotEqual(error.status, 0)
            self.assertIn(error.status_name, str(error))
            self.assertIn(self.peer.session, str(error))
            deadline = time.monotonic() + 10
            while not self.connection.closed:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
            with self.assertRaisesRegex(flagcx_p2p.P2pError, self.peer.session):
                self.connection.write(region, self.peer.address)


class AnyMoment(Pair):
    """Interrupts every few hundred microseconds."""

    def repeat(self, work: Callable[[], None], seconds: float = 0.4) -> int:
        """Until there were interrupts enough, each in a loop of `work` at a moment of its own; answers their number."""
        count, deadline = 0, time.monotonic() + seconds
        while time.monotonic() < deadline or count < 20:
            self.assertLess(time.monotonic(), deadline + 30)
            try:
                # Again, should the first one come in a destructor, which Python reports and goes on.
                with interrupts(random.uniform(0.0001, 0.002), 0.05):
                    while True:
                        work()
            except KeyboardInterrupt:
                count += 1
        return count

    def tearDown(self) -> None:
        closing = threading.Thread(target=self.client.close, daemon=True)
        closing.start()
        closing.join(10)
        self.assertFalse(closing.is_alive(), "close hangs")

    def test_no_notification_is_lost(self) -> None:
        sent, received = 0, []
        for size in (10, 1000):  # the two kinds
            for _ in range(15):
                for _ in range(300):
                    self.connection.notify(b"%d" % sent, bytes(size))
                    sent += 1
                time.sleep(0.005)
                try:
                    with interrupts(random.uniform(0.0001, 0.004)):
                        while True:
                            taken = self.server.notifications()
                            received.append(taken)  # no other call between the two
                except KeyboardInterrupt:
                    pass
        deadline = time.monotonic() + 10
        while sum(map(len, received)) < sent and time.monotonic() < deadline:
            received.append(self.server.notifications())
        names = sorted(int(one.name) for batch in received for one in batch)
        self.assertEqual(names, list(range(sent)))

    def test_transfers(self) -> None:
        piece = [Piece(self.local, self.remote.address)]
        self.repeat(lambda: self.connection.write_many(piece))
        self.repeat(lambda: self.connection.read_many(piece))
        self.repeat(lambda: self.connection.start_write(piece).wait())
        self.connection.write(self.local, self.remote.address)
        self.assertEqual(self.target, self.source)

    def test_registered_memory_stays_and_what_is_closed_goes(self) -> None:
        closed = 0

        def work() -> None:
            nonlocal closed
            self.client.register(bytearray(4096)).close()
            closed += 1

        before = self.client.stats()["regions"]
        interrupted = self.repeat(work)
        # What an interrupt left registered, between the two calls, is still held.
        self.assertLessEqual(self.client.stats()["regions"] - before, interrupted)
        self.assertGreater(closed, 0)
        self.connection.write(self.local, self.remote.address)
        self.assertEqual(self.target, self.source)

    def test_engines(self) -> None:
        def work() -> None:
            with Engine() as engine:
                engine.register(bytearray(64))

        self.repeat(work, 1)
        with Engine() as engine:
            self.assertGreater(engine.port, 0)

    def test_close_that_was_interrupted_may_be_repeated(self) -> None:
        for _ in range(20):
            engine, memory = Engine(), bytearray(64)
            region = engine.register(memory)
            with contextlib.suppress(KeyboardInterrupt), interrupts(random.uniform(0.0001, 0.002)):
                engine.close()
                time.sleep(0.01)
            engine.close()
            self.assertTrue(region.closed)
            memory.append(0)


if __name__ == "__main__":
    unittest.main()
