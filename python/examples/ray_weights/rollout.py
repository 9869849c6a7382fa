"""A rollout: an actor that reads the newest version into tensors of its own.

Ray calls the constructor again in another process when this one has died, with the same catalogue: it connects, and the next read
gets the newest version. Nothing else has to be done for that.
"""

import os
import time
from typing import Any

import numpy
import ray
from flagcx_p2p import Engine, Prepared

from messages import Catalogue, Descriptor, Model, Pulled
from parts import address_of, board, new_state, rows_of, wrong_tensors


class Rollout:
    def __init__(self, catalogue: Catalogue, model: Model, path: str) -> None:
        settings = {"FLAGCX_P2P_BIND": ray.util.get_node_ip_address(), "FLAGCX_P2P_PATH": path}
        self._engine = Engine(settings=settings)
        self._state = new_state(*model)
        self._engine.register_many(list(self._state.values()))
        self._board = board.new_board()
        self._board_region = self._engine.register(self._board)
        self._board_there = catalogue.board
        self._connection = self._engine.connect(catalogue.session)
        # All tensors of a version are one transfer, and the list of them is made once.
        self._reads = [self._prepare(there) for there in catalogue.states]
        self._mapped: "dict[str, Any]" = {}
        self._reading = False

    def _prepare(self, there: "dict[str, Descriptor]") -> Prepared:
        sizes = {name: rows_of(tensor).nbytes for name, tensor in self._state.items()}
        if sizes != {name: descriptor.size for name, descriptor in there.items()}:
            raise ValueError("the trainer's tensors have other names or sizes than those of this rollout: give both the same model")
        local = numpy.array([address_of(tensor) for tensor in self._state.values()], dtype=numpy.uint64)
        remote = numpy.array([there[name].address for name in self._state], dtype=numpy.uint64)
        return self._connection.prepare("read", local, remote, numpy.array(list(sizes.values()), dtype=numpy.uint64))

    def pull(self) -> Pulled:
        """Reads the newest version."""
        began = time.monotonic()
        while True:
            version = self._look(board.PUBLISHED)
            self._reading = True
            self._reads[version % board.STATES].run()
            self._reading = False
            # Else the trainer has begun to overwrite it, and a newer one is there.
            if self._look(board.BEGUN) < version + board.STATES:
                return self._pulled(version, began, self._connection.info().path)

    def is_reading(self) -> bool:
        """Called while `pull` runs, in another thread."""
        return self._reading

    def get(self, references: "list[Any]", version: int, copied: bool) -> Pulled:
        """The same from Ray's store: as arrays in the store's memory, which cannot be written to, or copied to the own tensors."""
        began = time.monotonic()
        arrays = ray.get(references[0])
        if copied:
            for tensor, array in zip(self._state.values(), arrays, strict=True):
                rows_of(tensor)[:] = array
        else:
            self._mapped = dict(zip(self._state, arrays, strict=True))
        return self._pulled(version, began, "object store")

    def wrong(self, version: int) -> int:
        """How many tensors are not of this version: those in the store's memory, if they are there, or the own ones."""
        wrong = wrong_tensors(self._mapped or self._state, version)
        self._mapped = {}
        return wrong

    def _pulled(self, version: int, began: float, path: str) -> Pulled:
        return Pulled(version, time.monotonic() - began, os.getpid(), path)

    def _look(self, which: int) -> int:
        self._connection.read(self._board_region, self._board_there)
        return int(self._board[which])
