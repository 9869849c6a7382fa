"""The engine of a `TransferEngine`, and its memory."""

import os
import threading
from collections.abc import Callable
from typing import Self

from .._errors import P2pError
from .._native import Engine
from . import _host_memory, _topology
from ._codes import FAILED, LOG, Refused, status
from ._directory import HANDSHAKE, Peers
from ._numbers import Numbers, number, same_length
from ._opened import Opened
from ._opening import open_engine


class Base:
    """Everything but the transfers."""

    def __init__(self) -> None:
        self._opening = threading.Lock()  # one opens or closes at a time
        self._opened: "Opened | None" = None
        given = os.environ.get("MC_TRANSFER_TIMEOUT")
        self._seconds = 30 if given is None else max(5, int(given) if given.isdecimal() else 0)

    # --- an engine ----------------------------------------------------------------------------------------------

    def initialize(self, local_hostname: str, metadata_server: str, protocol: str, device_name: "str | None") -> int:
        """Opens the engine: 0, or -1 with the reason in the log.

        local_hostname: how peers name this host; a port is ignored. metadata_server: "P2PHANDSHAKE", or "etcd://host:2379": then it is
        published there, with its port, and peers name this engine so. protocol: "rdma" or "tcp". device_name: RDMA devices,
        "mlx5_0,mlx5_1"; "": all. Called again, this opens another engine, and closes the first with its registrations.
        """
        return self._initialize(local_hostname, metadata_server, protocol, device_name)

    def initialize_ext(
        self, local_hostname: str, metadata_server: str, protocol: str, device_name: "str | None", metadata_type: str
    ) -> int:
        """As `initialize`. metadata_type: the kind of a metadata server, "etcd"; others are refused."""
        named = metadata_server if metadata_server == HANDSHAKE or "://" in metadata_server else f"{metadata_type}://{metadata_server}"
        return self._initialize(local_hostname, named, protocol, device_name)

    @status
    def _initialize(self, local_hostname: str, metadata_server: str, protocol: str, device_name: "str | None") -> None:
        with self._opening:
            self._end()
            engine = open_engine(local_hostname, metadata_server, protocol, device_name or "")
            self._opened = Opened(engine, None if metadata_server == HANDSHAKE else Peers())

    def close(self) -> None:
        """Ends the engine, its registrations and its transfers. Mooncake's has no such call; it ends when it is not referenced any more."""
        with self._opening:
            self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get_rpc_port(self) -> int:
        """The port that peers name. Raises P2pError before `initialize`."""
        return self._open().engine.port

    def get_engine(self) -> "Engine | None":
        """The engine of this package; None before `initialize`."""
        opened = self._opened
        return None if opened is None else opened.engine

    def get_engine_ptr(self) -> int:
        """Raises NotImplementedError: Mooncake answers a pointer to its C++ class."""
        raise NotImplementedError("this engine has no C++ object of Mooncake: get_engine() answers the flagcx_p2p.Engine")

    def get_local_topology(self, device_name: "str | None" = None) -> str:
        """JSON: the RDMA devices by NUMA node, near ones first. It needs no `initialize`."""
        return _topology.text(device_name or "")

    # --- memory -------------------------------------------------------------------------------------------------

    @status
    def register_memory(self, buffer_addr: int, capacity: int, location: str = "*") -> None:
        """Registers host or GPU memory, which the caller keeps. -7: a part of it is registered already. `location` is not needed."""
        opened = self._open()
        opened.memory.register(opened.engine, number(buffer_addr), number(capacity))

    @status
    def unregister_memory(self, buffer_addr: int) -> None:
        """Waits for the transfers that use it. -3: no registered memory begins there."""
        self._open().memory.unregister(number(buffer_addr))

    @status
    def batch_register_memory(self, buffer_addresses: Numbers, capacities: Numbers, location: str = "*") -> None:
        """Registers all, or none: then it answers what the first one that failed would."""
        opened = self._open()
        same_length(buffer_addresses, capacities)
        ranges = list(zip(map(number, buffer_addresses), map(number, capacities), strict=True))
        opened.memory.register_all(opened.engine, ranges)

    @status
    def batch_unregister_memory(self, buffer_addresses: Numbers) -> None:
        """Deregisters those that are registered. -3: one or more were not."""
        memory = self._open().memory
        errors: "list[Exception]" = []
        for address in map(number, buffer_addresses):
            try:
                memory.unregister(address)
            except (Refused, P2pError) as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def allocate_managed_buffer(self, length: int) -> int:
        """The address of new registered memory, which peers on this host can map; 0 when there is none to be had."""

        def allocate() -> int:
            opened = self._open()
            return opened.memory.allocate(opened.engine, number(length))

        return self._or_zero("allocate_managed_buffer", allocate)

    @status
    def free_managed_buffer(self, address: int, length: int) -> None:
        """Gives it back; waits for the transfers that use it. `length` is not needed."""
        memory = self._open().memory
        number(length)
        memory.free(number(address))

    @status
    def write_bytes_to_buffer(self, address: int, data: "str | bytes", length: int) -> None:
        """Copies the first `length` bytes of `data`, a text as UTF-8, to registered host memory of this engine. -1 for memory of a GPU or
        for reading only."""
        content = data.encode() if isinstance(data, str) else bytes(data)
        if number(length) > len(content):
            raise Refused(FAILED, f"{length} bytes are to be copied, {len(content)} were given")
        self._registered(number(address), length)
        try:
            _host_memory.write(address, content[:length])
        except OSError as error:
            raise Refused(FAILED, f"{length} bytes at {address:#x} cannot be written from the host: {error}") from None

    def read_bytes_from_buffer(self, address: int, length: int) -> bytes:
        """Bytes of registered host memory of this engine. Raises ValueError for other memory."""
        try:
            self._registered(number(address), number(length))
            return _host_memory.read(address, length)
        except (Refused, OSError) as error:
            raise ValueError(f"{length} bytes at {address:#x} cannot be read from the host: {error}") from None

    def get_first_buffer_address(self, segment_name: str) -> int:
        """The first registered memory of the peer that is still registered; 0 without one, or when the peer cannot be reached."""
        return self._or_zero("get_first_buffer_address", lambda: self._open().connect(segment_name)._oldest_region() or 0)

    # --- inside -------------------------------------------------------------------------------------------------

    def _open(self) -> Opened:
        opened = self._opened
        if opened is None:
            raise P2pError("the engine is not open: call initialize() first, and look at what it answers")
        return opened

    def _end(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.engine.close()

    def _registered(self, address: int, length: int) -> None:
        if not self._open().memory.holds(address, length):
            raise Refused(FAILED, f"{length} bytes at {address:#x} are in no registered memory of this engine")

    def _or_zero(self, what: str, call: "Callable[[], int]") -> int:
        try:
            return call()
        except (Refused, P2pError, ValueError) as error:
            LOG.error("%s: %s", what, error)
            return 0
