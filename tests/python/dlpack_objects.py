"""Objects that export memory by DLPack, laid out by hand: dlpack.h of version 1, before and after 1.0."""

import ctypes
from typing import Any, Optional

CPU, CUDA, CUDA_HOST, OPENCL, ROCM, CUDA_MANAGED = 1, 2, 3, 4, 10, 13
READ_ONLY, IS_COPIED, PADDED = 1, 2, 4


class _Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("id", ctypes.c_int32)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    """``DLManagedTensor``"""

    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]


class _Versioned(ctypes.Structure):
    """``DLManagedTensorVersioned``"""

    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", _Deleter),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype, _new_capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
#: What C refers to, for the whole process: a mistake is then a failed test, not a crash.
_kept: "list[Any]" = []


class DlpackArray:
    """Bytes at an address; ``strides`` in elements. ``version`` None: of before 1.0, with its arguments only."""

    def __init__(
        self,
        address: int,
        shape: "tuple[int, ...]",
        device: "tuple[int, int]" = (CPU, 0),
        strides: "Optional[tuple[int, ...]]" = None,
        bits: int = 8,
        byte_offset: int = 0,
        flags: int = 0,
        version: "Optional[tuple[int, int]]" = (1, 0),
    ) -> None:
        self.device, self.version = device, version
        #: How often the tensor was asked for, with which stream, and released.
        self.exported, self.released = 0, 0
        self.stream: Any = "not asked for"
        extents = (ctypes.c_int64 * len(shape))(*shape)
        steps = None if strides is None else (ctypes.c_int64 * len(strides))(*strides)
        tensor = _Tensor(address, _Device(*device), len(shape), _DataType(1, bits, 1), extents, steps, byte_offset)
        deleter = _Deleter(self._release)
        if version is None:
            self._managed: Any = _Managed(tensor, None, deleter)
        else:
            self._managed = _Versioned(*version, None, deleter, flags, tensor)
        _kept.append((extents, steps, deleter, self._managed))

    def _release(self, _: int) -> None:
        self.released += 1

    def __dlpack_device__(self) -> "tuple[int, int]":
        return self.device

    def __dlpack__(self, *, stream: Any = None, **newer: Any) -> Any:
        if self.version is None and newer:
            raise TypeError(f"__dlpack__() got unexpected keyword arguments {list(newer)}")
        self.exported += 1
        self.stream = stream
        name = b"dltensor" if self.version is None else b"dltensor_versioned"
        return _new_capsule(ctypes.addressof(self._managed), name, None)
