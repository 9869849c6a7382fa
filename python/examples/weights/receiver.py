"""A receiver: waits for versions, and reads each newest one into tensors of its own.

receiver.py CATALOGUE           # what the trainer has printed
"""

import json
import sys
import time
from typing import Any

import numpy
from flagcx_p2p import Connection, Engine, P2pError, Prepared, Region

import board
import lifetime
from content import wrong_tensors
from state import address_of, new_state, rows_of

# How long it waits before it looks for a version again.
PAUSE_SECONDS = 1e-3


class Receiver:
    """Tensors that follow the trainer's."""

    def __init__(self, engine: Engine, catalogue: "dict[str, Any]") -> None:
        self._state = new_state()
        # Registered once, kept alive by the engine, used for every version.
        engine.register_many(list(self._state.values()))
        self._board = board.new_board()
        self._board_region: Region = engine.register(self._board)
        self._board_there: int = catalogue["board"]
        self._connection = engine.connect(catalogue["session"])
        # All tensors of a state are one transfer, and the list of them is made once.
        self._reads = [self._prepare(self._connection, there) for there in catalogue["states"]]
        self._version = 0

    def _prepare(self, connection: Connection, there: "dict[str, int]") -> Prepared:
        local = numpy.array([address_of(tensor) for tensor in self._state.values()], dtype=numpy.uint64)
        remote = numpy.array([there[name] for name in self._state], dtype=numpy.uint64)
        sizes = numpy.array([rows_of(tensor).nbytes for tensor in self._state.values()], dtype=numpy.uint64)
        return connection.prepare("read", local, remote, sizes)

    def follow(self) -> None:
        """Reads versions until the trainer has gone."""
        torn = 0
        while True:
            version = self._look(board.PUBLISHED)
            if version == self._version:
                time.sleep(PAUSE_SECONDS)
                continue
            say({"reading": version})
            began = time.monotonic()
            self._reads[version % board.STATES].run()
            ended = time.monotonic()
            if self._look(board.BEGUN) >= version + board.STATES:
                torn += 1  # some tensors may be of the newer version: that one is read
                continue
            self._version = version
            # All right or not, this takes longer than the read.
            wrong = wrong_tensors(self._state, version)
            say({"version": version, "seconds": ended - began, "at": ended, "torn": torn, "wrong": wrong, "path": self.path()})

    def path(self) -> str:
        return self._connection.info().path

    def _look(self, which: int) -> int:
        """A number of the board."""
        self._connection.read(self._board_region, self._board_there)
        return int(self._board[which])


def say(line: "dict[str, Any]") -> None:
    print(json.dumps(line), flush=True)


def main() -> None:
    lifetime.end_with_parent()
    with Engine() as engine:
        receiver = Receiver(engine, json.loads(sys.argv[1]))
        say({"ready": True})
        try:
            receiver.follow()
        except P2pError as error:
            # The trainer has ended, which ends the example too.
            say({"ended": str(error)})


if __name__ == "__main__":
    main()
