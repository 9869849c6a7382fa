"""The trainer: registers its tensors once, and makes a version for each line of its input.

It takes no part in any transfer: receivers read. That is why it does not care when one joins late, is slow, or dies, and why N of
them take N processors for the copies, not one of the trainer's. `board.py` says how they learn of a version.
"""

import json
import sys
import time

from flagcx_p2p import Engine

import board
import lifetime
from content import train
from state import address_of, new_state


def main() -> None:
    lifetime.end_with_parent()
    with Engine() as engine:
        states = [new_state() for _ in range(board.STATES)]
        versions = board.new_board()
        # Peers may read this memory, and not write to it. It is registered before they connect, and so announced to them.
        engine.register_many([versions, *(tensor for state in states for tensor in state.values())], read_only=True)
        engine.start_server()
        catalogue = {
            "session": engine.session,
            "board": int(versions.ctypes.data),
            "states": [{name: address_of(tensor) for name, tensor in state.items()} for state in states],
        }
        print(json.dumps(catalogue), flush=True)
        for version, _ in enumerate(sys.stdin, start=1):
            board.put(versions, board.BEGUN, version)
            train(states[version % board.STATES], version)
            board.put(versions, board.PUBLISHED, version)
            print(json.dumps({"version": version, "at": time.monotonic()}), flush=True)


if __name__ == "__main__":
    main()
