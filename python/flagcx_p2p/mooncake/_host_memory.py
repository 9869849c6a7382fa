"""Bytes of host memory by its address, moved by the kernel: memory that cannot be accessed is an error, where a copy of our own would
end the process."""

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterator


def write(address: int, content: bytes) -> None:
    """Raises OSError (EFAULT) for memory that is no host memory, or for reading only; a part may have been written then."""
    source = memoryview(content)
    with _file() as file:
        _all(len(content), lambda at: os.pwrite(file, source[at:], at))
        _all(len(content), lambda at: os.preadv(file, [_memory(address + at, len(content) - at)], at))


def read(address: int, length: int) -> bytes:
    """Raises OSError (EFAULT) for memory that is no host memory."""
    content = bytearray(length)
    target = memoryview(content)
    with _file() as file:
        _all(length, lambda at: os.pwritev(file, [_memory(address + at, length - at)], at))
        _all(length, lambda at: os.preadv(file, [target[at:]], at))
    return bytes(content)


@contextlib.contextmanager
def _file() -> "Iterator[int]":
    file = os.memfd_create("flagcx-p2p-bytes")
    try:
        yield file
    finally:
        os.close(file)


def _all(length: int, move: "Callable[[int], int]") -> None:
    at = 0
    while at < length:
        moved = move(at)
        if moved == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        at += moved


def _memory(address: int, length: int) -> "ctypes.Array[ctypes.c_char]":
    return (ctypes.c_char * length).from_address(address)
