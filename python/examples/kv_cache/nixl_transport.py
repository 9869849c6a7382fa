"""The transport over NIXL with its UCX backend, as vLLM's connector uses it: descriptors prepared once, transfers by index."""

import base64
import os
import time
from typing import Any

import numpy
from nixl._api import nixl_agent, nixl_agent_config  # type: ignore[import-not-found, import-untyped, unused-ignore]

from cache import address_of, new_memory
from transport import Peer, Pieces, Sending, Transport


class Nixl(Transport):
    """An agent."""

    def __init__(self) -> None:
        # Without a thread that spins, for both processes ask for progress all the time: on two processors the first token takes a
        # third of the time so.
        configuration = nixl_agent_config(enable_prog_thread=False, backends=["UCX"])
        # The name has to be one of its own, also after a restart.
        self._agent = nixl_agent(f"agent-{os.getpid()}", configuration)

    def make_cache(self, size: int, piece: int) -> Any:
        memory = new_memory(size)
        self._address, self._size, self._piece = address_of(memory), size, piece
        self._agent.register_memory([(self._address, size, 0, "")], "DRAM")
        return memory

    def offer(self) -> "dict[str, Any]":
        metadata = base64.b64encode(self._agent.get_agent_metadata()).decode()
        return {"metadata": metadata, "address": self._address, "size": self._size}

    def connect(self, offer: "dict[str, Any]") -> Peer:
        name = self._agent.add_remote_agent(base64.b64decode(offer["metadata"]))
        here = self._agent.prep_xfer_dlist("NIXL_INIT_AGENT", self._pieces(self._address, self._size), "DRAM")
        there = self._agent.prep_xfer_dlist(name, self._pieces(offer["address"], offer["size"]), "DRAM")
        return _Peer(self._agent, here, there)

    def messages(self, patience: float) -> "list[bytes]":
        # It has no call that waits for one.
        until = time.monotonic() + patience
        while not (found := self._agent.get_new_notifs()) and time.monotonic() < until:
            time.sleep(20e-6)
        return [message for messages in found.values() for message in messages]

    def close(self) -> None:
        # Without the library's clean-up, which waits for peers that may have gone.
        pass

    def _pieces(self, address: int, size: int) -> Any:
        """A row for each piece: address, length, device."""
        rows = numpy.zeros((size // self._piece, 3), dtype=numpy.uint64)
        rows[:, 0] = numpy.arange(address, address + size, self._piece, dtype=numpy.uint64)
        rows[:, 1] = self._piece
        return rows


class _Peer(Peer):
    def __init__(self, agent: Any, here: Any, there: Any) -> None:
        self._agent, self._here, self._there = agent, here, there

    def send(self, here: Pieces, there: Pieces, message: bytes) -> Sending:
        handle = self._agent.make_prepped_xfer(
            "WRITE", self._here, here.astype(numpy.int32), self._there, there.astype(numpy.int32), message
        )
        return _Sending(self._agent, handle, self._agent.transfer(handle))

    def path(self) -> str:
        return "UCX_TLS=" + os.environ.get("UCX_TLS", "all")


class _Sending(Sending):
    def __init__(self, agent: Any, handle: Any, state: str) -> None:
        self._agent, self._handle, self._state = agent, handle, state

    def wait(self) -> None:
        # It has no call that waits, and without its thread this call is what makes transfers progress.
        while self._state == "PROC":
            time.sleep(20e-6)
            self._state = self._agent.check_xfer_state(self._handle)
        if self._state != "DONE":
            raise RuntimeError(f"a transfer of NIXL failed: {self._state}")
        self._agent.release_xfer_handle(self._handle)
