"""Memory of GPUs by the CUDA driver's own interface: the stand-in of ../nullcuda, or a real driver. Needs nothing but ctypes."""

import ctypes
import os
import pathlib
import subprocess
from typing import Any

#: Folders of drivers that are not in the linker's cache, as in ../gpu/run.sh.
_FOLDERS = (
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib/wsl/lib",
)


def build_stand_in(folder: str) -> str:
    """Builds the stand-in into the folder; answers its path. OSError, CalledProcessError: there is no C compiler."""
    script = pathlib.Path(__file__).resolve().parent.parent / "nullcuda" / "build.sh"
    return subprocess.run([str(script), folder], check=True, capture_output=True, text=True).stdout.strip()


class Driver:
    """The driver, in the primary context of each device, as the CUDA runtime library uses it."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._call("cuInit", ctypes.c_uint(0))
        count = ctypes.c_int()
        self._call("cuDeviceGetCount", ctypes.byref(count))
        self.devices = count.value

    @classmethod
    def of_this_machine(cls) -> "Driver":
        """The real one; OSError with the reason if there is none."""
        for path in ("libcuda.so.1", *(os.path.join(folder, "libcuda.so.1") for folder in _FOLDERS)):
            try:
                return cls(path)
            except OSError:
                pass
        raise OSError(f"no CUDA driver: there is no libcuda.so.1, neither in the linker's cache nor in {', '.join(_FOLDERS)}")

    def name(self, device: int) -> str:
        text = ctypes.create_string_buffer(128)
        self._call("cuDeviceGetName", text, ctypes.c_int(127), ctypes.c_int(device))
        return text.value.decode()

    def allocate(self, size: int, device: int = 0) -> int:
        address = ctypes.c_uint64()
        self._in(device, "cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def allocate_managed(self, size: int, device: int = 0) -> int:
        address = ctypes.c_uint64()
        self._in(device, "cuMemAllocManaged", ctypes.byref(address), ctypes.c_size_t(size), ctypes.c_uint(1))
        return address.value

    def free(self, address: int, device: int = 0) -> None:
        self._in(device, "cuMemFree_v2", ctypes.c_uint64(address))

    def put(self, address: int, content: bytes, device: int = 0) -> None:
        room = ctypes.create_string_buffer(content, len(content))
        self._copy(address, ctypes.addressof(room), len(content), device)

    def get(self, address: int, size: int, device: int = 0) -> bytes:
        room = ctypes.create_string_buffer(size)
        self._copy(ctypes.addressof(room), address, size, device)
        return room.raw

    def _copy(self, target: int, source: int, size: int, device: int) -> None:
        self._in(device, "cuMemcpy", ctypes.c_uint64(target), ctypes.c_uint64(source), ctypes.c_size_t(size))
        self._in(device, "cuCtxSynchronize")

    def _in(self, device: int, function: str, *arguments: Any) -> None:
        """Calls it in the device's context, and makes the one that was current current again."""
        before, context = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuCtxGetCurrent", ctypes.byref(before))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), ctypes.c_int(device))
        self._call("cuCtxSetCurrent", context)
        try:
            self._call(function, *arguments)
        finally:
            self._call("cuCtxSetCurrent", before)

    def _call(self, function: str, *arguments: Any) -> None:
        code = getattr(self._library, function)(*arguments)
        if code != 0:
            raise RuntimeError(f"{function}: CUDA error {code}")


class CudaArray:
    """An object with ``__cuda_array_interface__`` (version 3); ``more`` overrides what it says."""

    def __init__(self, address: int, shape: "tuple[int, ...]", typestr: str = "|u1", read_only: bool = False, **more: Any) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": typestr,
            "data": (address, read_only),
            "version": 3,
            "strides": None,
            "stream": None,
            **more,
        }
