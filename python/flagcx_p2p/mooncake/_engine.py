"""The class, with its transfers."""

import contextlib
from collections.abc import Callable
from typing import TypeVar

from .._errors import P2pError
from .._native import Connection
from . import _address
from ._base import Base
from ._batches import Batch
from ._codes import FAILED, LOG, NO_ADDRESS, UNREACHABLE, status
from ._lending import with_memory
from ._numbers import Numbers, number, right_kinds, same_length
from ._opened import Opened
from ._types import TransferNotify, TransferOpcode

_Opcode = TransferOpcode
_Answer = TypeVar("_Answer")


class TransferEngine(Base):
    """One-sided reads and writes of peers' memory, which calls name by its address.

    A peer is named "host:port": the address of its host, and its `get_rpc_port`. The connection to it is made by the first call that
    names it. With a metadata server it is named by its `local_hostname`. Calls that move bytes end by their own deadline, 30 s
    (MC_TRANSFER_TIMEOUT, in seconds, at least 5) and a second for each GB, and raise TypeError for what is no number, as all calls do.
    """

    TransferOpcode = TransferOpcode

    # --- transfers that wait ------------------------------------------------------------------------------------

    @status
    def transfer_sync_write(
        self, target_hostname: str, buffer: int, peer_buffer_address: int, length: int, transport_hint: str = ""
    ) -> None:
        """Writes `length` bytes at `buffer` to the peer's memory. 0: they are there."""
        self._move(target_hostname, [buffer], [peer_buffer_address], [length], _Opcode.Write)

    @status
    def transfer_sync_read(
        self, target_hostname: str, buffer: int, peer_buffer_address: int, length: int, transport_hint: str = ""
    ) -> None:
        """Reads `length` bytes of the peer's memory into `buffer`. 0: they are here."""
        self._move(target_hostname, [buffer], [peer_buffer_address], [length], _Opcode.Read)

    @status
    def transfer_sync(
        self,
        target_hostname: str,
        buffer: int,
        peer_buffer_address: int,
        length: int,
        opcode: _Opcode,
        notify: "TransferNotify | None" = None,
        transport_hint: str = "",
    ) -> None:
        """Either of them. `notify` is sent when the bytes are there: 0 says that both arrived."""
        self._move(target_hostname, [buffer], [peer_buffer_address], [length], opcode, notify)

    @status
    def batch_transfer_sync_write(
        self, target_hostname: str, buffers: Numbers, peer_buffer_addresses: Numbers, lengths: Numbers, transport_hint: str = ""
    ) -> None:
        """Many ranges at once. After another answer than 0 any of them may have been written, unless one was invalid: then none."""
        self._move(target_hostname, buffers, peer_buffer_addresses, lengths, _Opcode.Write)

    @status
    def batch_transfer_sync_read(
        self, target_hostname: str, buffers: Numbers, peer_buffer_addresses: Numbers, lengths: Numbers, transport_hint: str = ""
    ) -> None:
        """Many ranges at once."""
        self._move(target_hostname, buffers, peer_buffer_addresses, lengths, _Opcode.Read)

    @status
    def batch_transfer_sync(
        self,
        target_hostname: str,
        buffers: Numbers,
        peer_buffer_addresses: Numbers,
        lengths: Numbers,
        opcode: _Opcode,
        notify: "TransferNotify | None" = None,
        transport_hint: str = "",
    ) -> None:
        """Either of them, with a message after all bytes."""
        self._move(target_hostname, buffers, peer_buffer_addresses, lengths, opcode, notify)

    def _move(
        self,
        peer: str,
        local: Numbers,
        remote: Numbers,
        lengths: Numbers,
        opcode: _Opcode,
        notify: "TransferNotify | None" = None,
    ) -> None:
        right_kinds(opcode, notify)
        opened = self._open()
        connection = opened.connect(peer)
        same_length(local, remote, lengths)
        message = None if notify is None else notify.encoded()  # before a byte is moved
        move = connection.write_many if opcode is _Opcode.Write else connection.read_many
        seconds = self._time(lengths)
        with contextlib.ExitStack() as until:
            _with_memory(opened, (local, remote, lengths), lambda: move(local, remote, lengths, timeout=seconds), until)
        if message is not None:
            connection.notify(*message)

    # --- transfers that do not wait -----------------------------------------------------------------------------

    def transfer_submit_write(
        self, target_hostname: str, buffer: int, peer_buffer_address: int, length: int, transport_hint: str = ""
    ) -> int:
        """A number for `transfer_check_status`; 0 when the peer cannot be reached."""
        return self._start(target_hostname, [buffer], [peer_buffer_address], [length], _Opcode.Write)

    def batch_transfer_async_write(
        self, target_hostname: str, buffers: Numbers, peer_buffer_addresses: Numbers, lengths: Numbers, transport_hint: str = ""
    ) -> int:
        """A number for `get_batch_transfer_status`; 0 when the peer cannot be reached, or the lists have different lengths."""
        return self._start(target_hostname, buffers, peer_buffer_addresses, lengths, _Opcode.Write)

    def batch_transfer_async_read(
        self, target_hostname: str, buffers: Numbers, peer_buffer_addresses: Numbers, lengths: Numbers, transport_hint: str = ""
    ) -> int:
        """As `batch_transfer_async_write`."""
        return self._start(target_hostname, buffers, peer_buffer_addresses, lengths, _Opcode.Read)

    def batch_transfer_async(
        self,
        target_hostname: str,
        buffers: Numbers,
        peer_buffer_addresses: Numbers,
        lengths: Numbers,
        opcode: _Opcode,
        transport_hint: str = "",
    ) -> int:
        """Either of them."""
        return self._start(target_hostname, buffers, peer_buffer_addresses, lengths, opcode)

    def transfer_check_status(self, batch_id: int) -> int:
        """0: it runs. 1: it is done. -1: it failed. -2: its time has passed. After 1, -1 and -2 the number means nothing: -1."""
        return self._check([number(batch_id)], block=False)[0]

    def get_batch_transfer_status(self, batch_ids: Numbers) -> int:
        """Waits for the ends of all. 0: all are done. -1: one or more failed. The numbers mean nothing afterwards."""
        codes = self._check([number(one) for one in batch_ids], block=True)
        return 0 if all(code == 1 for code in codes) else FAILED

    def _check(self, numbers: "list[int]", block: bool) -> "list[int]":
        opened = self._opened
        if opened is None:
            LOG.error("transfers %s: the engine is not open: they ended with it", numbers)
            return [FAILED] * len(numbers)
        return [opened.batches.check(one, block) for one in numbers]

    def _start(self, peer: str, local: Numbers, remote: Numbers, lengths: Numbers, opcode: _Opcode) -> int:
        right_kinds(opcode, None)

        def start() -> int:
            opened = self._open()
            connection = opened.connect(peer)
            same_length(local, remote, lengths)
            return opened.batches.add(self._started(opened, connection, local, remote, lengths, opcode))

        return self._or_zero("transfer", start)

    def _started(
        self, opened: Opened, connection: Connection, local: Numbers, remote: Numbers, lengths: Numbers, opcode: _Opcode
    ) -> Batch:
        if len(lengths) == 0:
            return Batch()
        start = connection.start_write if opcode is _Opcode.Write else connection.start_read
        seconds = self._time(lengths)
        until = contextlib.ExitStack()
        try:
            transfer = _with_memory(opened, (local, remote, lengths), lambda: start(local, remote, lengths), until)
        except (P2pError, ValueError) as error:
            until.close()
            return Batch(error=error)  # its status says so, as Mooncake's does
        except BaseException:
            until.close()
            raise
        return Batch(transfer, seconds, until)

    # --- messages and peers -------------------------------------------------------------------------------------

    def get_notifies(self) -> "list[TransferNotify]":
        """The messages that have arrived since the last call. Raises P2pError before `initialize`."""
        found = self._open().engine.notifications()
        return [TransferNotify(one.name.decode(errors="replace"), one.content.decode(errors="replace")) for one in found]

    def send_probe(self, peer_server_name: str) -> int:
        """Whether the peer answers: 0, -102 if it does not, -101 for what cannot be a peer's name, -1 before `initialize`."""
        opened = self._opened
        if opened is None:
            LOG.error("send_probe: the engine is not open: call initialize() first, and look at what it answers")
            return FAILED
        try:
            opened.connect(peer_server_name)
        except (P2pError, ValueError) as error:
            LOG.error("send_probe: %s", error)
            may_be_one = _address.is_session(peer_server_name) if opened.peers is None else isinstance(error, P2pError)
            return UNREACHABLE if may_be_one else NO_ADDRESS
        return 0

    def warmup_efa_segment(self, segment_name: str) -> int:
        """Makes the connection to the peer ahead of its first transfer: 0, or as `send_probe`."""
        return self.send_probe(segment_name)

    # --- inside -------------------------------------------------------------------------------------------------

    def _time(self, lengths: Numbers) -> float:
        """How long a transfer may take."""
        return self._seconds + int(sum(lengths)) / 1e9


def _with_memory(
    opened: Opened, columns: "tuple[Numbers, Numbers, Numbers]", call: "Callable[[], _Answer]", until: contextlib.ExitStack
) -> "_Answer":
    local, _, lengths = columns
    ranges = ((int(address), int(size)) for address, size in zip(local, lengths, strict=True))
    try:
        return with_memory(opened.memory, opened.engine, ranges, call, until)
    except ValueError:
        for column in columns:
            for value in column:
                number(value)  # raises TypeError for what is out of range
        raise
