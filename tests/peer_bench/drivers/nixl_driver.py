"""The driver of NIXL with its UCX backend, through its Python package.

    nixl_driver.py target
    nixl_driver.py initiator default|no-thread LINE_OF_THE_TARGET

no-thread: the initiator has no progress thread, so it makes progress only while it asks how a transfer stands. The
target has one in any case. UCX_TLS chooses the path. Transfers are prepared before the clock starts.
"""

import base64
import importlib.metadata
import os
import sys
import time

import driver
from nixl_cu12._api import nixl_agent, nixl_agent_config


def open_side(measure, side, thread):
    """An agent and the address of its registered pool."""
    config = nixl_agent_config(enable_prog_thread=thread, enable_listen_thread=False, backends=["UCX"])
    agent = nixl_agent("target" if side == driver.TARGET else "initiator", config)
    pool = measure.measure_pool(side)
    agent.register_memory([(pool, driver.POOL_BYTES, 0, "")], "DRAM")
    return agent, pool


class Transfers(list):
    """The functions of all sets; gives their handles back at the end."""

    def __init__(self, agent, peer, plan):
        self.agent, self.handles = agent, []
        size, operation = plan.load.size, "WRITE" if plan.load.put else "READ"
        for local, remote in plan.sets():
            here = agent.get_xfer_descs([(address, size, 0) for address in local], "DRAM")
            there = agent.get_xfer_descs([(address, size, 0) for address in remote], "DRAM")
            handle = agent.initialize_xfer(operation, here, there, peer, b"")
            self.handles.append(handle)
            self.append(self.move(handle))

    def move(self, handle):
        """The function that moves one set."""
        start, ask = self.agent.transfer, self.agent.check_xfer_state

        def move():
            state = start(handle)
            while state == "PROC":
                state = ask(handle)
            if state != "DONE":
                driver.fail(f"nixl: a transfer ended in state {state}")

        return move

    def __del__(self):
        for handle in self.handles:
            self.agent.release_xfer_handle(handle)


def main():
    role = sys.argv[1]
    measure = driver.library("nixl")
    if role == "target":
        agent, pool = open_side(measure, driver.TARGET, thread=True)
        driver.send_line(f"{os.getpid()},{pool},{base64.b64encode(agent.get_agent_metadata()).decode()}")
        while True:
            time.sleep(3600)
    agent, pool = open_side(measure, driver.INITIATOR, thread=sys.argv[2] == "default")
    peer, remote, metadata = sys.argv[3].split(",")
    name = agent.add_remote_agent(base64.b64decode(metadata))
    name = name.decode() if isinstance(name, bytes) else name
    driver.send_line(importlib.metadata.version("nixl"))
    driver.serve(measure, pool, int(peer), int(remote), lambda plan: Transfers(agent, name, plan))
    # Without the library's clean-up: the target may have been stopped or killed by now.
    os._exit(0)


if __name__ == "__main__":
    main()
