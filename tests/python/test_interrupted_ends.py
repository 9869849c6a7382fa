"""Ctrl-C while something is ended that takes its time: the wait for it ends, and it goes on to end."""

import os
import time
import unittest
from typing import Any, Callable

#: Each copy takes so long, whatever becomes of its transfer.
HOLD = 1.2

# Before the engine reads its configuration.
os.environ["FLAGCX_P2P_FABRIC"] = "software"
os.environ["FLAGCX_P2P_FAULTS"] = f"hold=us:{int(HOLD * 1e6)}"

from pair import Pair
from test_interrupts import interrupts

from flagcx_p2p import Piece, Transfer, TransferCancelled, TransferFailed


class Ends(Pair):
    def setUp(self) -> None:
        super().setUp()
        self.begun = time.monotonic()
        self.transfer: Transfer = self.connection.start_write([Piece(self.local, self.remote.address)])
        time.sleep(0.1)  # a worker's thread is at it

    def interrupted(self, call: Callable[[], Any]) -> None:
        """`call` is left while the copy goes on, which its repetition waits for."""
        with self.assertRaises(KeyboardInterrupt), interrupts(0.1):
            call()
        self.assertLess(time.monotonic() - self.begun, HOLD - 0.2, "it was left before the end")
        call()
        self.assertGreater(time.monotonic() - self.begun, HOLD - 0.1, "it returns at the end")

    def test_a_cancel(self) -> None:
        self.interrupted(self.transfer.cancel)
        self.assertTrue(self.transfer.done())
        with self.assertRaises(TransferCancelled):
            self.transfer.wait()
        self.local.close()
        self.source.append(0)  # nothing uses it

    def test_a_close_of_a_connection(self) -> None:
        self.interrupted(self.connection.close)
        self.assertTrue(self.connection.closed)
        with self.assertRaises(TransferFailed):
            self.transfer.wait()

    def test_a_close_of_an_engine(self) -> None:
        self.interrupted(self.client.close)
        self.assertTrue(self.local.closed)
        self.source.append(0)

    def test_an_engine_that_is_left_gives_its_memory_up_at_its_end(self) -> None:
        with self.assertRaises(KeyboardInterrupt), interrupts(0.1):
            self.client.close()
        self.assertTrue(self.client.closed)
        with self.assertRaises(BufferError):
            self.source.append(0)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.source.append(0)
                break
            except BufferError:
                self.assertLess(time.monotonic(), deadline, "it keeps its memory")
                time.sleep(0.01)
        self.assertGreater(time.monotonic() - self.begun, HOLD - 0.1, "no earlier than its end")


if __name__ == "__main__":
    unittest.main()
