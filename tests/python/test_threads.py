"""Engines, regions and transfers that several threads use while one of them ends them."""

import contextlib
import os
import signal
import socket
import threading
import time
import unittest
from typing import Any, Callable, List

from pair import Pair
from programs import Peer

# Before the engine reads its configuration: between two processes of a host only TCP needs the peer's help.
os.environ["FLAGCX_P2P_PATH"] = "tcp"

import flagcx_p2p
from flagcx_p2p import Engine, Piece


class Threads(Pair):
    def setUp(self) -> None:
        super().setUp()
        self.events: List[str] = []

    def run_in_thread(self, work: Callable[[], Any]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def join(self, *threads: threading.Thread) -> None:
        for thread in threads:
            thread.join(20)
            self.assertFalse(thread.is_alive(), "the thread hangs")


class ClosingAnEngine(Threads):
    def test_it_ends_the_connect_of_another_thread(self) -> None:
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        session = f"127.0.0.1:{silent.getsockname()[1]}"

        def connect() -> None:
            try:
                self.client.connect(session)
            except flagcx_p2p.P2pError as error:
                self.events.append(str(error))

        thread = self.run_in_thread(connect)
        peer, _ = silent.accept()  # the call waits for an answer
        self.addCleanup(peer.close)
        begun = time.monotonic()
        self.client.close()
        self.join(thread)
        self.assertLess(time.monotonic() - begun, 5)
        self.assertEqual(self.events, ["the engine is closed"])

    def test_threads_at_work_are_told(self) -> None:
        def work(use: Callable[[Engine], Any]) -> None:
            try:
                while True:
                    use(self.client)
            except flagcx_p2p.TransferCancelled:  # its transfer was under way
                self.events.append("the engine is closed")
            except flagcx_p2p.P2pError as error:
                self.events.append(str(error))

        uses: List[Callable[[Engine], Any]] = [
            lambda engine: engine.port,
            lambda engine: engine.notifications(),
            lambda engine: engine.stats(),
            lambda engine: engine.register(bytearray(100)).close(),
            lambda engine: self.connection.info(),
            lambda engine: self.connection.notify(b"n"),
            lambda engine: self.connection.write(self.local, self.remote.address),
            lambda engine: self.connection.start_write([Piece(self.local, self.remote.address)]).wait(),
        ]
        for _ in range(10):
            with self.subTest():
                self.setUp()
                threads = [self.run_in_thread(lambda use=use: work(use)) for use in uses]
                time.sleep(0.02)
                self.client.close()
                self.join(*threads)
                self.assertEqual(len(self.events), len(uses))
                for event in self.events:
                    self.assertRegex(event, "engine (is|was) closed")

    def test_a_signal_handler_may_close(self) -> None:
        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, lambda *_: self.client.close()))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with self.assertRaisesRegex(flagcx_p2p.P2pError, "closed"):
            while True:
                self.client.port

    def test_each_that_closes_returns_when_nothing_touches_the_memory(self) -> None:
        with Peer(64 << 20) as peer:
            for _ in range(3):
                engine, memory = Engine(), bytearray(64 << 20)
                region = engine.register(memory)
                connection = engine.connect(peer.session)
                peer.stop()  # so that the end takes a while
                transfer = connection.start_write([Piece(region, peer.address)])
                begin = threading.Barrier(4)

                def close() -> None:
                    begin.wait(10)
                    engine.close()
                    try:
                        memory.append(0)  # it would raise while the memory is in use
                    except BufferError as error:
                        self.events.append(str(error))

                self.join(*[self.run_in_thread(close) for _ in range(4)])
                self.assertEqual(self.events, [])
                with self.assertRaises(flagcx_p2p.TransferCancelled):
                    transfer.wait()
                peer.go_on()

    def test_an_engine_that_is_dropped_is_closed(self) -> None:
        memory = bytearray(64)
        session, address = f"127.0.0.1:{self.server.port}", self.remote.address
        engine = Engine()
        engine.connect(session).write(engine.register(memory), address, size=64)
        with self.assertRaises(BufferError):
            memory.append(0)
        self.join(self.run_in_thread(lambda: [engine.notifications() for _ in range(100)]))
        del engine
        memory.append(0)


class ClosingARegion(Threads):
    def test_the_second_to_close_waits_for_the_first(self) -> None:
        if os.environ["FLAGCX_P2P_FABRIC"] != "software":
            self.skipTest("not run over verbs: a device moves bytes from and to a process that is stopped")
        memory = bytearray(64 << 20)
        region = self.client.register(memory)
        with Peer(len(memory)) as peer:
            connection = self.client.connect(peer.session)
            peer.stop()
            transfer = connection.start_write([Piece(region, peer.address)])
            threads = [self.run_in_thread(region.close) for _ in range(2)]
            for thread in threads:
                thread.join(0.2)
                self.assertTrue(thread.is_alive(), "a transfer uses the region")
            with self.assertRaises(BufferError):
                memory.append(0)
            transfer.cancel()
            self.join(*threads)
            memory.append(0)


class WaitingForATransfer(Threads):
    def failing_transfer(self) -> flagcx_p2p.Transfer:
        """A READ that has begun on a region which has just been closed."""
        deadline = time.monotonic() + 20
        while True:
            self.assertLess(time.monotonic(), deadline)
            region = self.server.register(bytearray(64))
            self.connection.read(self.local, region.address, size=64)
            region.close()
            # The client mostly still believes in it; once it knows, the call is refused and no transfer begins.
            with contextlib.suppress(flagcx_p2p.P2pError):
                return self.connection.start_read([Piece(self.local, region.address, size=64)])

    def test_no_thread_takes_a_failure_for_success(self) -> None:
        for _ in range(10):
            transfer, begin = self.failing_transfer(), threading.Barrier(4)
            self.events = []

            def wait() -> None:
                begin.wait(10)
                try:
                    transfer.wait(10)
                    self.events.append("success")
                except flagcx_p2p.TransferFailed as error:
                    self.events.append(f"failure of {error.id}")

            self.join(*[self.run_in_thread(wait) for _ in range(4)])
            self.assertEqual(self.events, [f"failure of {transfer.id}"] * 4)


if __name__ == "__main__":
    unittest.main()
