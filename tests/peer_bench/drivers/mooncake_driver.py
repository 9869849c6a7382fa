"""The driver of Mooncake's transfer engine over TCP, through its Python package.

    mooncake_driver.py target
    mooncake_driver.py initiator LINE_OF_THE_TARGET
"""

import importlib.metadata
import os
import sys
import time

import driver
from mooncake.engine import TransferEngine


def open_side(measure, side):
    """An engine and the address of its registered pool."""
    engine = TransferEngine()
    if engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") != 0:
        driver.fail("mooncake: initialize failed; its own messages are above")
    pool = measure.measure_pool(side)
    if engine.register_memory(pool, driver.POOL_BYTES) != 0:
        driver.fail("mooncake: register_memory failed; its own messages are above")
    return engine, pool


def transfers(engine, session, plan):
    """A function for each set: one call with one block, or one call with all."""
    size, put = plan.load.size, plan.load.put
    one = engine.transfer_sync_write if put else engine.transfer_sync_read
    many = engine.batch_transfer_sync_write if put else engine.batch_transfer_sync_read

    def transfer(local, remote):
        if len(local) == 1:
            call, arguments = one, (session, local[0], remote[0], size)
        else:
            call, arguments = many, (session, local, remote, [size] * len(local))

        def move():
            if call(*arguments) != 0:
                driver.fail("mooncake: a transfer failed; its own messages are above")

        return move

    return [transfer(local, remote) for local, remote in plan.sets()]


def main():
    role = sys.argv[1]
    measure = driver.library("mooncake")
    engine, pool = open_side(measure, driver.TARGET if role == "target" else driver.INITIATOR)
    if role == "target":
        driver.send_line(f"{os.getpid()},{pool},127.0.0.1:{engine.get_rpc_port()}")
        while True:
            time.sleep(3600)
    peer, remote, session = sys.argv[2].split(",")
    version = [installed.version for installed in importlib.metadata.distributions()
               if installed.metadata["Name"].startswith("mooncake")]
    driver.send_line(" ".join(version))
    driver.serve(measure, pool, int(peer), int(remote), lambda plan: transfers(engine, session, plan))
    # Without the library's clean-up: the target may have been stopped or killed by now.
    os._exit(0)


if __name__ == "__main__":
    main()
