"""The trainer: an actor that offers its tensors to every process that has their descriptors, and makes versions of them.

It takes no part in any transfer, and knows of no rollout: neither one that restarts nor one that is slow costs it anything.
"""

from typing import Any

import ray
from flagcx_p2p import Engine

from messages import Catalogue, Descriptor, Model
from parts import address_of, board, new_state, rows_of, train


class Trainer:
    def __init__(self, model: Model) -> None:
        # Ray knows by which address the other nodes reach this one.
        self._engine = Engine(settings={"FLAGCX_P2P_BIND": ray.util.get_node_ip_address()})
        self._states = [new_state(*model) for _ in range(board.STATES)]
        self._board = board.new_board()
        tensors = [tensor for state in self._states for tensor in state.values()]
        # Peers may read this memory, and not write to it.
        self._engine.register_many([self._board, *tensors], read_only=True)
        self._engine.start_server()
        self._version = 0

    def catalogue(self) -> Catalogue:
        """A few kilobytes, whatever the size of the model. They hold as long as this process lives."""
        states = [
            {name: Descriptor(address_of(tensor), rows_of(tensor).nbytes) for name, tensor in state.items()}
            for state in self._states
        ]
        return Catalogue(self._engine.session, int(self._board.ctypes.data), states)

    def train(self) -> int:
        """Makes the next version, and answers its number. From then on rollouts can read it."""
        version = self._version + 1
        board.put(self._board, board.BEGUN, version)
        train(self._states[version % board.STATES], version)
        board.put(self._board, board.PUBLISHED, version)
        self._version = version
        return version

    def put(self) -> "list[Any]":
        """The newest version as an object of Ray's store, to compare with. In a list Ray passes the reference, not the object."""
        return [ray.put([rows_of(tensor) for tensor in self._states[self._version % board.STATES].values()])]
