"""A description of the measured machine, without names or anything that identifies it."""

import ctypes
import os
import platform
import signal


def describe():
    """The description of the host in the table's header and the JSON."""
    return {"cpu": processor(), "cores": len(os.sched_getaffinity(0)), "memory_gib": round(memory() / 2**30),
            "system": system(), "kernel": platform.release().split("-")[0]}


def load():
    """Processes that wanted a processor during the last minute, on average."""
    return round(os.getloadavg()[0], 2)


def reason_against_checks():
    """The reason why a process cannot read another one's memory here, as the check of the bytes must, or None."""
    word = ctypes.create_string_buffer(8)
    iov = (ctypes.c_size_t * 2)(ctypes.addressof(word), len(word))
    libc = ctypes.CDLL(None, use_errno=True)
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        if libc.process_vm_readv(child, iov, 1, iov, 1, 0) == len(word):
            return None
        return os.strerror(ctypes.get_errno())
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def memory():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def system():
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError, AttributeError):
        return platform.system()
