"""Objects that can be neither copied nor pickled, and raise the reason."""

import copy
import gc
import pickle
import unittest
from typing import Any

from pair import Pair

import flagcx_p2p
from flagcx_p2p import Piece


class Single(Pair):
    def test_copies_and_pickles_are_refused_with_what_to_do_instead(self) -> None:
        transfer = self.connection.start_write([Piece(self.local, self.remote.address)])
        advice = {
            self.client: "create one in the other process",
            self.connection: "connect an Engine of the other process",
            self.local: "tell the peer its address and size",
            self.local[:8]: "tell the peer its address and size",
            self.client.allocate(4096): "tell the peer its address and size",
            transfer: "wait for it here",
            self.connection.prepare("write", [Piece(self.local, self.remote.address)]): "prepare it on a Connection",
        }
        for thing, instead in advice.items():
            refused = f"{type(thing).__name__} objects can be neither copied nor pickled.*{instead}"
            for inside in (thing, [thing], Piece(thing, 0) if thing is self.local else {"it": thing}):
                for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                    with self.assertRaisesRegex(TypeError, refused):
                        pickle.dumps(inside, protocol)
                with self.assertRaisesRegex(TypeError, refused):
                    copy.deepcopy(inside)
            for attempt in (copy.copy, lambda it: it.__reduce__(), lambda it: it.__reduce_ex__(2)):
                with self.assertRaisesRegex(TypeError, refused):
                    attempt(thing)
        gc.collect()
        transfer.wait()
        self.connection.write(self.local, self.remote.address)
        self.assertEqual(self.target, self.source)

    def test_what_describes_may_go_to_other_processes(self) -> None:
        things: "list[Any]" = [
            self.connection.info(),
            flagcx_p2p.fabric_info(),
            flagcx_p2p.Notification(b"name", b"content"),
        ]
        for thing in things:
            self.assertEqual(pickle.loads(pickle.dumps(thing)), thing)
        facts = ("why", 7, 3, 10, "remote access error", "127.0.0.1:5")
        for kind in (flagcx_p2p.TransferFailed, flagcx_p2p.TransferTimedOut, flagcx_p2p.TransferCancelled):
            error = pickle.loads(pickle.dumps(kind(*facts)))
            self.assertIs(type(error), kind)
            self.assertEqual((str(error), error.id, error.piece, error.status, error.status_name, error.peer), facts)


if __name__ == "__main__":
    unittest.main()
