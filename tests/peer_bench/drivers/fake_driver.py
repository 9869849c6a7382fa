"""A driver for tests: moves bytes through /proc/PID/mem, or falsely reports that it does.

    fake_driver.py target
    fake_driver.py honest|nothing|short|stale|ends|silent LINE_OF_THE_TARGET

short: leaves out the last byte of each block; stale: moves only the first transfers, which are not measured.
"""

import ctypes
import os
import sys
import time

import driver


class Transfers(list):
    """The functions of all sets."""

    def __init__(self, mode, memory, plan):
        self.moved = 0
        size = plan.load.size - (mode == "short")

        def move(local, remote):
            self.moved += 1
            if mode == "nothing" or (mode == "stale" and self.moved > 5):
                return
            for here, there in zip(local, remote):
                block = (ctypes.c_char * size).from_address(here)
                if plan.load.put:
                    os.pwrite(memory, block, there)
                else:
                    block[:] = os.pread(memory, size, there)

        for local, remote in plan.sets():
            self.append(lambda local=local, remote=remote: move(local, remote))


def prepare(mode, memory, plan):
    if mode == "ends":
        raise RuntimeError("a reason")
    if mode == "silent":
        time.sleep(3600)
    return Transfers(mode, memory, plan)


def main():
    mode = sys.argv[1]
    measure = driver.library("fake")
    pool = measure.measure_pool(driver.TARGET if mode == "target" else driver.INITIATOR)
    if mode == "target":
        driver.send_line(f"{os.getpid()},{pool}")
        time.sleep(3600)
    peer, remote = map(int, sys.argv[2].split(","))
    memory = os.open(f"/proc/{peer}/mem", os.O_RDWR)
    driver.send_line("")
    driver.serve(measure, pool, peer, remote, lambda plan: prepare(mode, memory, plan))


if __name__ == "__main__":
    main()
