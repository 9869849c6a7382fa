"""Ctrl-C in the calls that wait for a directory: each ends at once, and no other thread waits for it."""

import contextlib
import os
import shutil
import signal
import threading
import time
import unittest
from typing import Any, Callable, Iterator

import pair  # the environment of the engines, first
from etcd_server import Etcd
from test_interrupts import interrupts

from flagcx_p2p import Engine

assert pair
#: How long a call waits for the directory, where nothing ends it.
LIMIT_S = 10


@unittest.skipUnless(shutil.which("etcd"), "etcd is not installed (package etcd-server)")
class ASilentEtcd(unittest.TestCase):
    def setUp(self) -> None:
        self.etcd = Etcd(self)
        self.other = Engine(directory=self.etcd.url())
        self.addCleanup(self.other.close)
        self.addCleanup(self.go_on)

    def engine(self) -> Engine:
        engine = Engine(directory=self.etcd.url(), settings={"FLAGCX_P2P_CONNECT_TIMEOUT_MS": str(1000 * LIMIT_S)})
        self.addCleanup(engine.close)
        return engine

    def pause(self) -> None:
        self.etcd.process.send_signal(signal.SIGSTOP)
        # Its threads stop one after the other, and may answer before.
        _, status = os.waitpid(self.etcd.process.pid, os.WUNTRACED)
        self.assertTrue(os.WIFSTOPPED(status))

    def go_on(self) -> None:
        self.etcd.process.send_signal(signal.SIGCONT)

    def names(self) -> "list[str]":
        return [peer.name for peer in self.other.peers()]

    def assert_gone(self, name: str) -> None:
        until = time.monotonic() + 10
        while name in self.names():
            self.assertLess(time.monotonic(), until, f"{name} is still published")
            time.sleep(0.05)

    def test_ctrl_c_ends_every_call(self) -> None:
        calls: "dict[str, Callable[[Engine], Any]]" = {
            "publish": lambda engine: engine.publish("late"),
            "connect": lambda engine: engine.connect("early"),
            "peers": lambda engine: engine.peers(),
            "withdraw": lambda engine: engine.withdraw("early"),
            "close": lambda engine: engine.close(),
        }
        for name, call in calls.items():
            with self.subTest(name):
                engine = self.engine()
                engine.publish("early")
                self.pause()
                begun = time.monotonic()
                try:
                    with interrupts(0.3), self.assertRaises(KeyboardInterrupt):
                        call(engine)
                    took = time.monotonic() - begun
                finally:
                    self.go_on()
                self.assertLess(took, 1.8, "a turn of 0.2 s, and room for a slow machine")
                if name == "withdraw":
                    self.assertEqual(engine.published, {})
                    self.assert_gone("early")
                engine.close()
                self.assert_gone("early")
                self.assert_gone("late")

    def test_a_name_that_comes_with_ctrl_c_is_given_up_while_other_threads_run(self) -> None:
        engine = self.engine()
        # The lease is there already: only the name itself is waited for.
        engine.publish("before")

        def interrupted(*_: Any) -> None:
            self.go_on()
            while "late" not in self.names():
                time.sleep(0.01)
            # The answer of the call is on its way to it, if not there.
            time.sleep(0.1)
            self.pause()
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupted)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        self.pause()
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with longest_pause() as longest:
            with self.assertRaises(KeyboardInterrupt):
                engine.publish("late")
        self.assertLess(longest[0], 1, "withdrawing waits 2 s for a silent etcd, and other threads do not")
        self.go_on()
        self.assert_gone("late")
        self.assertEqual(self.names(), ["before"])


@contextlib.contextmanager
def longest_pause() -> "Iterator[list[float]]":
    """The longest time for which another thread could not run, in seconds: known at the end."""
    longest, ended = [0.0], threading.Event()

    def run() -> None:
        last = time.monotonic()
        while not ended.wait(0.01):
            now = time.monotonic()
            longest[0], last = max(longest[0], now - last), now

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield longest
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    unittest.main()
