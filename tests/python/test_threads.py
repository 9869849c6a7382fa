"""Engines, regions and transfers that several threads use while one of them ends them."""

import contextlib
import signal
import socket
import threading
import time
import unittest
from typing import Any, Callable, Iterator, List
from unittest import mock

from pair import Pair

import flagcx_p2p
from flagcx_p2p import Piece, _transfer


class Threads(Pair):
    def setUp(self) -> None:
        super().setUp()
        self.library = self.client._library
        self.events: List[str] = []

    @contextlib.contextmanager
    def observed(self, name: str, inside: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Notes when the library's function `name` has returned, after `inside` has run as a part of it."""
        function = getattr(self.library, name)

        def call(*arguments: Any) -> Any:
            inside()
            answer = function(*arguments)
            self.events.append(name)
            return answer

        with mock.patch.object(self.library, name, call):
            yield

    def run_in_thread(self, work: Callable[[], Any]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def join(self, thread: threading.Thread) -> None:
        thread.join(10)
        self.assertFalse(thread.is_alive(), "the thread hangs")


class ClosingAnEngine(Threads):
    def test_it_waits_for_the_call_of_another_thread(self) -> None:
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        session = f"127.0.0.1:{silent.getsockname()[1]}"

        def connect() -> None:
            with contextlib.suppress(flagcx_p2p.P2pError):
                self.client.connect(session)

        with self.observed("connect"), self.observed("engine_destroy"):
            thread = self.run_in_thread(connect)
            peer, _ = silent.accept()  # the call is inside the library, and waits for an answer
            self.run_in_thread(lambda: (time.sleep(0.2), peer.close()))
            self.client.close()
            self.assertEqual(self.events, ["connect", "engine_destroy"])
            self.join(thread)

    def test_threads_at_work_are_told(self) -> None:
        def work(use: Callable[[flagcx_p2p.Engine], Any]) -> None:
            try:
                while True:
                    use(self.client)
            except flagcx_p2p.P2pError as error:
                self.events.append(str(error))

        uses: List[Callable[[flagcx_p2p.Engine], Any]] = [
            lambda engine: engine.port,
            lambda engine: engine.notifications(),
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
                for thread in threads:
                    self.join(thread)
                self.assertEqual(self.events, ["the engine is closed"] * len(uses))

    def test_from_within_a_call_it_happens_at_the_end_of_the_call(self) -> None:
        # As a signal handler does, which runs in the middle of what the main thread does.
        with self.observed("engine_port", self.client.close), self.observed("engine_destroy"):
            self.join(self.run_in_thread(lambda: self.client.port))
            self.assertEqual(self.events, ["engine_port", "engine_destroy"])
        with self.assertRaisesRegex(flagcx_p2p.P2pError, "closed"):
            self.client.port

    def test_a_signal_handler_may_close(self) -> None:
        self.addCleanup(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, lambda *_: self.client.close()))
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with self.assertRaisesRegex(flagcx_p2p.P2pError, "closed"):
            while True:
                self.client.port

    def test_the_second_to_close_waits_for_the_first(self) -> None:
        going, go_on = threading.Event(), threading.Event()
        with self.observed("engine_destroy", lambda: (going.set(), go_on.wait(10))):
            first = self.run_in_thread(self.client.close)
            self.assertTrue(going.wait(10))
            second = self.run_in_thread(lambda: (self.client.close(), self.events.append("closed")))
            third = self.run_in_thread(lambda: (self.local.close(), self.events.append("region closed")))
            second.join(0.1)
            third.join(0.1)
            with self.assertRaises(BufferError):
                self.source.append(0)
            go_on.set()
            for thread in (first, second, third):
                self.join(thread)
            self.assertEqual(self.events[0], "engine_destroy")
            self.source.append(0)


class ClosingARegion(Threads):
    def test_the_second_to_close_waits_for_the_first(self) -> None:
        going, go_on = threading.Event(), threading.Event()
        with self.observed("deregister", lambda: (going.set(), go_on.wait(10))):
            first = self.run_in_thread(self.local.close)
            self.assertTrue(going.wait(10))
            second = self.run_in_thread(lambda: (self.local.close(), self.events.append("closed")))
            second.join(0.1)
            with self.assertRaises(BufferError):
                self.source.append(0)
            go_on.set()
            self.join(first)
            self.join(second)
            self.assertEqual(self.events, ["deregister", "closed"])
            self.source.append(0)


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
        transfer = self.failing_transfer()
        make_error = _transfer._error

        def wait() -> None:
            try:
                transfer.wait(10)
                self.events.append("success")
            except flagcx_p2p.TransferFailed:
                self.events.append("failure")

        def interrupted(result: Any, parts: Any) -> Any:
            # Another thread runs, which has time for a whole wait, before the first one knows what went wrong.
            if threading.current_thread() is threading.main_thread():
                self.join(self.run_in_thread(wait))
            return make_error(result, parts)

        with mock.patch.object(_transfer, "_error", interrupted):
            wait()
        self.assertEqual(self.events, ["failure", "failure"])


if __name__ == "__main__":
    unittest.main()
