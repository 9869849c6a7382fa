"""The memory of a Python object, kept where it is."""

import ctypes
from typing import Any


class _PyBuffer(ctypes.Structure):
    """``Py_buffer`` of the C interface."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


class ExportedBuffer:
    """Contiguous memory that can neither be freed nor resized while this lives.

    ``ctypes`` exports writable buffers by itself, and does not tell the address of others.
    """

    def __init__(self, buffer: Any, writable: bool) -> None:
        with memoryview(buffer) as view:
            self.size = view.nbytes
        if self.size == 0:
            raise ValueError("an empty buffer cannot be registered")
        if writable:
            self._exported: Any = (ctypes.c_uint8 * self.size).from_buffer(buffer)
            self.address: int = ctypes.addressof(self._exported)
            return
        self._exported = memoryview(buffer)
        # Flags 0, PyBUF_SIMPLE: contiguous, writable or not. It raises what the object does.
        told = _PyBuffer()
        ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(self._exported), ctypes.byref(told), 0)
        self.address = told.buf
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(told))
