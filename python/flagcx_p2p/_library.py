"""The shared library: where it is, and the types of its functions."""

import ctypes
import ctypes.util
import os
from ctypes import POINTER, c_char, c_char_p, c_int, c_int32, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ._errors import P2pError


class NotifBlock(ctypes.Structure):
    """What ``flagcxP2pEngineTakeNotifs`` answers: notifications one behind the other, in memory for ``free``."""

    _fields_ = [("address", c_void_p), ("bytes", c_size_t)]


class XferResult(ctypes.Structure):
    """``FlagcxP2pXferResult``."""

    _fields_ = [
        ("size", c_uint32),
        ("state", c_uint32),
        ("iov", c_uint64),
        ("status", c_uint32),
        ("vendorError", c_uint32),
        ("peer", c_char * 64),
        ("reason", c_char * 168),
    ]


class ConnInfo(ctypes.Structure):
    """``FlagcxP2pConnInfo``."""

    _fields_ = [
        ("size", c_uint32),
        ("path", c_uint32),
        ("lanes", c_uint32),
        ("healthyLanes", c_uint32),
        ("gpuIndex", c_int32),
        ("local", c_uint8),
        ("ours", c_uint8),
        ("readPath", c_uint8),
        ("writePath", c_uint8),
        ("peer", c_char * 64),
    ]


class SlowTransferStruct(ctypes.Structure):
    """``FlagcxP2pSlowTransfer``."""

    _fields_ = [
        ("size", c_uint32),
        ("isRead", c_uint32),
        ("transferId", c_uint64),
        ("bytes", c_uint64),
        ("ageMs", c_uint64),
        ("pieces", c_uint64),
        ("piecesDone", c_uint64),
        ("lanes", c_uint32),
        ("reserved", c_uint32),
        ("path", c_char * 16),
        ("peer", c_char * 64),
    ]


class _FabricInfo(ctypes.Structure):
    _fields_ = [("size", c_uint32), ("devices", c_uint32), ("provider", c_char * 16), ("reason", c_char * 488)]


# XferResult.state
PENDING, DONE, FAILED, TIMED_OUT, CANCELLED, UNKNOWN = range(6)
# Answer of the calls that never wait.
WOULD_BLOCK = 1
# Flags of flagcxP2pEngineRegFlags.
REG_HOST, REG_DEVICE, REG_UNANNOUNCED, REG_READ_ONLY = 1, 2, 256, 512
# Further ones of flagcxP2pEngineAllocShared.
ALLOC_HUGE, ALLOC_OUTLIVE = 1024, 2048

_Prototype = Tuple[str, Any, List[Any]]

_PROTOTYPES: Dict[str, _Prototype] = {
    "last_error": ("flagcxP2pEngineLastError", c_char_p, []),
    "version": ("flagcxP2pVersion", c_char_p, []),
    "fabric_info": ("flagcxP2pGetFabricInfo", c_int, [POINTER(_FabricInfo)]),
    "metrics_text": ("flagcxP2pMetricsText", c_int, [c_char_p, c_size_t, POINTER(c_size_t)]),
    "engine_create": ("flagcxP2pCEngineCreate", c_void_p, []),
    "engine_destroy": ("flagcxP2pCEngineDestroy", None, [c_void_p]),
    "engine_port": ("flagcxP2pCEngineGetRpcPort", c_int, [c_void_p]),
    "slow_transfers": (
        "flagcxP2pEngineGetSlowTransfers",
        c_int,
        [c_void_p, c_uint32, POINTER(SlowTransferStruct), c_size_t, POINTER(c_size_t)],
    ),
    "engine_start_server": ("flagcxP2pCEngineStartRpcServer", c_int, [c_void_p]),
    "register": ("flagcxP2pEngineRegFlags", c_int, [c_void_p, c_uint64, c_size_t, c_uint32, POINTER(c_uint64)]),
    "register_shared": (
        "flagcxP2pEngineRegShared",
        c_int,
        [c_void_p, c_uint64, c_size_t, c_int, c_uint64, c_uint32, POINTER(c_uint64)],
    ),
    "allocate": (
        "flagcxP2pEngineAllocShared",
        c_int,
        [c_void_p, c_size_t, c_uint32, POINTER(c_void_p), POINTER(c_uint64)],
    ),
    "free_shared": ("flagcxP2pEngineFreeShared", c_int, [c_void_p, c_void_p]),
    "deregister": ("flagcxP2pCEngineMrDestroy", None, [c_void_p, c_uint64]),
    "connect": ("flagcxP2pCEngineGetConn", c_void_p, [c_void_p, c_char_p]),
    "conn_info": ("flagcxP2pEngineGetConnInfo", c_int, [c_void_p, POINTER(ConnInfo)]),
    "try_read": (
        "flagcxP2pEngineTryReadRanges",
        c_int,
        [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, POINTER(c_uint64)],
    ),
    "try_write": (
        "flagcxP2pEngineTryWriteRanges",
        c_int,
        [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_size_t, POINTER(c_uint64)],
    ),
    "xfer_wait": ("flagcxP2pEngineXferWait", c_int, [c_void_p, c_uint64, c_int, POINTER(XferResult)]),
    "xfer_cancel": ("flagcxP2pEngineXferCancel", c_int, [c_void_p, c_uint64]),
    "notify_bytes": ("flagcxP2pEngineSendNotifBytes", c_int, [c_void_p, c_char_p, c_void_p, c_size_t]),
    "notifications": ("flagcxP2pEngineTakeNotifs", c_int, [c_void_p, c_void_p, c_void_p]),
}


class Library:
    """The functions, typed, by the short names of the table above."""

    def __init__(self, path: str) -> None:
        handle = ctypes.CDLL(path)
        for name, (symbol, result, arguments) in _PROTOTYPES.items():
            try:
                function = getattr(handle, symbol)
            except AttributeError:
                raise P2pError(f"{path} has no {symbol}: not this library, or an older one") from None
            function.restype = result
            function.argtypes = arguments
            setattr(self, name, function)
        self.free = handle.free  # the C library's, which allocated the blocks
        self.free.restype, self.free.argtypes = None, [c_void_p]
        self.path = path

    def __getattr__(self, name: str) -> Any:  # for type checkers: the functions are set above
        raise AttributeError(name)

    def error(self) -> P2pError:
        """Why this thread's last refused call was refused."""
        return P2pError(self.last_error().decode(errors="replace") or "refused without a reason")


_library: Optional[Library] = None


def load(path: Optional[str] = None) -> Library:
    """Loads the shared library, once; later calls answer the same one.

    ``path``, else the environment's FLAGCX_P2P_LIBRARY, else what the system's loader knows as ``flagcx_p2p`` or as
    ``flagcx`` (which may have the engine inside). Everything in this package calls it, so only programs that want
    another file need to.
    """
    global _library
    if _library is not None:
        if path is not None and path != _library.path:
            raise P2pError(f"{_library.path} is loaded already, so {path} cannot be")
        return _library
    candidates = [path, os.environ.get("FLAGCX_P2P_LIBRARY")]
    wanted = next((candidate for candidate in candidates if candidate), None)
    wanted = wanted or ctypes.util.find_library("flagcx_p2p") or ctypes.util.find_library("flagcx")
    if wanted is None:
        raise P2pError("libflagcx_p2p.so was not found: install it, or set FLAGCX_P2P_LIBRARY to its path")
    try:
        _library = Library(wanted)
    except OSError as error:
        raise P2pError(f"the library could not be loaded: {error}") from error
    return _library


def version() -> str:
    """The library's version, "major.minor.patch"."""
    return load().version().decode()


class FabricInfo(NamedTuple):
    """What moves the bytes in this process, and why."""

    #: "verbs", "software", or "" when there is no device.
    provider: str
    #: Devices in use.
    devices: int
    #: In words for an operator.
    reason: str


def fabric_info() -> FabricInfo:
    """Tells which fabric runs. Opens the devices if nothing has yet."""
    library = load()
    info = _FabricInfo(size=ctypes.sizeof(_FabricInfo))
    if library.fabric_info(ctypes.byref(info)) != 0:
        raise library.error()
    return FabricInfo(info.provider.decode(), info.devices, info.reason.decode(errors="replace"))


def metrics_text() -> str:
    """The metrics of the process in the Prometheus text format."""
    library = load()
    needed = c_size_t()
    text = ctypes.create_string_buffer(1)
    while True:
        answer = library.metrics_text(text, len(text), ctypes.byref(needed))
        if answer == 0:
            return text.value.decode()
        if answer < 0:
            raise library.error()
        text = ctypes.create_string_buffer(needed.value)
