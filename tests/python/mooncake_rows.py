"""The rows of mooncake_script.py."""

import time
from typing import Any

from mooncake_script import ALONE, HOST, UNUSED, SIZE, Pair, Side, row

HALF = SIZE // 2
#: Of the process, but no memory.
WILD = 4096

# --- in a process of its own: before initialize, and initialize itself ----------------------------------------------------

for _text, _call in {
    "get_rpc_port": lambda one: one.engine.get_rpc_port(),
    "register_memory": lambda one: one.engine.register_memory(one.address, SIZE),
    "unregister_memory": lambda one: one.engine.unregister_memory(one.address),
    "batch_register_memory": lambda one: one.engine.batch_register_memory([one.address], [SIZE]),
    "allocate_managed_buffer": lambda one: one.engine.allocate_managed_buffer(64),
    "free_managed_buffer": lambda one: one.engine.free_managed_buffer(one.address, 64),
    "transfer_sync_write": lambda one: one.engine.transfer_sync_write(UNUSED, one.address, one.address, 64),
    "batch_transfer_async_write": lambda one: one.engine.batch_transfer_async_write(UNUSED, [one.address], [one.address], [64]),
    "transfer_check_status": lambda one: one.engine.transfer_check_status(7),
    "get_notifies": lambda one: one.engine.get_notifies(),
    "get_first_buffer_address": lambda one: one.engine.get_first_buffer_address(UNUSED),
    "send_probe": lambda one: one.engine.send_probe(UNUSED),
    "get_engine": lambda one: one.engine.get_engine(),
}.items():
    ALONE[f"{_text} before initialize"] = _call

for _text, _arguments in {
    "tcp": (HOST, "P2PHANDSHAKE", "tcp", ""),
    "TCP": (HOST, "P2PHANDSHAKE", "TCP", ""),
    "no protocol": (HOST, "P2PHANDSHAKE", "", ""),
    "a port in local_hostname": (f"{HOST}:12345", "P2PHANDSHAKE", "tcp", ""),
    "localhost": ("localhost", "P2PHANDSHAKE", "tcp", ""),
    "no local_hostname": ("", "P2PHANDSHAKE", "tcp", ""),
    "device_name None": (HOST, "P2PHANDSHAKE", "tcp", None),
    "device_name that is not there": (HOST, "P2PHANDSHAKE", "tcp", "mlx5_9"),
    "rdma without a NIC": (HOST, "P2PHANDSHAKE", "rdma", ""),
    "nvlink": (HOST, "P2PHANDSHAKE", "nvlink", ""),
    "nonsense as protocol": (HOST, "P2PHANDSHAKE", "nonsense", ""),
    "local_hostname that no one can resolve": ("no.such.host.invalid", "P2PHANDSHAKE", "tcp", ""),
    "etcd, not there": (HOST, "etcd://127.0.0.1:1", "tcp", ""),
    "http, not there": (HOST, "http://127.0.0.1:1/metadata", "tcp", ""),
    "redis": (HOST, "redis://127.0.0.1:1", "tcp", ""),
}.items():
    ALONE[f"initialize: {_text}"] = lambda one, given=_arguments: one.engine.initialize(*given)

ALONE["initialize_ext: P2PHANDSHAKE"] = lambda one: one.engine.initialize_ext(HOST, "P2PHANDSHAKE", "tcp", "", "P2PHANDSHAKE")
ALONE["initialize_ext: etcd, not there"] = lambda one: one.engine.initialize_ext(HOST, "127.0.0.1:1", "tcp", "", "etcd")


@row("initialize twice, then the port", ALONE)
def _(one: Side) -> Any:
    first = one.open(), one.engine.get_rpc_port()
    second = one.open(), one.engine.get_rpc_port()
    return [first[0], second[0], first[1] != second[1]]


@row("rdma without a NIC, then tcp", ALONE)
def _(one: Side) -> Any:
    one.open("rdma")
    return one.open()


for _text, _call in {
    "register_memory of an address without memory": lambda one: one.engine.register_memory(WILD, 64),
    "register_memory of address 0": lambda one: one.engine.register_memory(0, 64),
    "batch_register_memory, more addresses than lengths": lambda one: one.engine.batch_register_memory([one.address + 99 * SIZE, 0], [64]),
    "batch_register_memory, more lengths than addresses": lambda one: [
        one.engine.unregister_memory(one.address),
        one.engine.batch_register_memory([one.address], [64, 64]),
    ],
    "batch_unregister_memory, one unknown; then unregister_memory and register_memory of the known one": lambda one: [
        one.engine.batch_unregister_memory([one.address, 12345]),
        one.engine.unregister_memory(one.address),
        one.engine.register_memory(one.address, SIZE),
    ],
    "transfer_check_status of a number that never was": lambda one: one.engine.transfer_check_status(0),
    "get_batch_transfer_status of a number that never was": lambda one: one.engine.get_batch_transfer_status([0]),
    "transfer_sync_write from an address without memory": lambda one: one.engine.transfer_sync_write(
        one.session, WILD, one.address, 64
    ),
    "write_bytes_to_buffer to an address without memory": lambda one: one.engine.write_bytes_to_buffer(WILD, b"abc", 3),
    "read_bytes_from_buffer from an address without memory": lambda one: one.engine.read_bytes_from_buffer(WILD, 3),
}.items():
    ALONE[_text] = lambda one, call=_call: [one.open(), one.engine.register_memory(one.address, SIZE), call(one)][2]


# --- memory ---------------------------------------------------------------------------------------------------------------

@row("get_first_buffer_address of the peer")
def _(pair: Pair) -> Any:
    return pair.engine.get_first_buffer_address(pair.peer) == pair.there


@row("get_first_buffer_address of a dead peer")
def _(pair: Pair) -> Any:
    return pair.engine.get_first_buffer_address(UNUSED)


@row("transfer_sync_write from memory that is not registered")
def _(pair: Pair) -> Any:
    return [pair.write(0, 0), pair.ask("bytes", 0, 2) == list(pair.bytes.raw[:2])]


@row("transfer_sync_read into memory that is not registered")
def _(pair: Pair) -> Any:
    return pair.engine.transfer_sync_read(pair.peer, pair.address + 512, pair.there, 64)


for _text, _call in {
    "register_memory": lambda pair: pair.engine.register_memory(pair.address, HALF),
    "register_memory again": lambda pair: pair.engine.register_memory(pair.address, HALF),
    "register_memory of a part": lambda pair: pair.engine.register_memory(pair.address + 64, 64),
    "register_memory of more": lambda pair: pair.engine.register_memory(pair.address + HALF - 1, 64),
    "register_memory of 0 bytes": lambda pair: pair.engine.register_memory(pair.address + HALF, 0),
    "register_memory with a location": lambda pair: pair.engine.register_memory(pair.address + HALF, 64, "cpu:0"),
    "register_memory, arguments by name": lambda pair: pair.engine.register_memory(
        buffer_addr=pair.address + HALF + 64, capacity=64, location="cuda:7"
    ),
    "register_memory of a negative address": lambda pair: pair.engine.register_memory(-1, 64),
    "register_memory of a text": lambda pair: pair.engine.register_memory("1", 64),
    "register_memory of a float": lambda pair: pair.engine.register_memory(1.0, 64),
    "unregister_memory": lambda pair: pair.engine.unregister_memory(pair.address),
    "unregister_memory again": lambda pair: pair.engine.unregister_memory(pair.address),
    "unregister_memory of an inner address": lambda pair: pair.engine.unregister_memory(pair.address + HALF + 1),
    "batch_unregister_memory": lambda pair: pair.engine.batch_unregister_memory([pair.address + HALF, pair.address + HALF + 64]),
    "batch_unregister_memory of none": lambda pair: pair.engine.batch_unregister_memory([]),
    "batch_register_memory": lambda pair: pair.engine.batch_register_memory([pair.address, pair.address + HALF], [64, 64]),
    "batch_register_memory of none": lambda pair: pair.engine.batch_register_memory([], []),
    "batch_register_memory, one again": lambda pair: pair.engine.batch_register_memory([pair.address + 512, pair.address], [64, 64]),
    "then unregister_memory of the other one": lambda pair: pair.engine.unregister_memory(pair.address + 512),
}.items():
    row(_text)(_call)


@row("register_memory of all")
def _(pair: Pair) -> Any:
    for offset in (0, HALF):
        pair.engine.unregister_memory(pair.address + offset)
    return pair.engine.register_memory(pair.address, SIZE)


# --- transfers that wait --------------------------------------------------------------------------------------------------


@row("transfer_sync_write")
def _(pair: Pair) -> Any:
    pair.bytes[100:104] = b"1234"
    code = pair.write(100, 200, 4)
    return [code, pair.ask("bytes", 199, 6)[1:5]]


@row("transfer_sync_read")
def _(pair: Pair) -> Any:
    return [pair.engine.transfer_sync_read(pair.peer, pair.address + 300, pair.there + 200, 4), pair.bytes.raw[300:304].decode()]


@row("transfer_sync, Write")
def _(pair: Pair) -> Any:
    pair.bytes[0:4] = b"sync"
    code = pair.engine.transfer_sync(pair.peer, pair.address, pair.there + 400, 4, pair.opcode.Write)
    return [code, pair.ask("bytes", 400, 4)]


@row("transfer_sync, Read, arguments by name")
def _(pair: Pair) -> Any:
    return pair.engine.transfer_sync(
        target_hostname=pair.peer, buffer=pair.address, peer_buffer_address=pair.there, length=4, opcode=pair.opcode.Read, transport_hint=""
    )


@row("batch_transfer_sync_write")
def _(pair: Pair) -> Any:
    pair.bytes[0:4] = b"many"
    return [pair.batch("batch_transfer_sync_write", [(0, 600, 2), (2, 700, 2)]), pair.ask("bytes", 600, 2), pair.ask("bytes", 700, 2)]


@row("batch_transfer_sync_read")
def _(pair: Pair) -> Any:
    return [pair.batch("batch_transfer_sync_read", [(800, 600, 2), (802, 700, 2)]), pair.bytes.raw[800:804].decode()]


for _text, _call in {
    "transfer_sync_write of 0 bytes": lambda pair: pair.write(0, 0, 0),
    "transfer_sync_write past the end here": lambda pair: pair.write(SIZE - 32, 0, 64),
    "transfer_sync_write past the end there": lambda pair: pair.write(0, SIZE - 32, 64),
    "transfer_sync_read past the end there": lambda pair: pair.engine.transfer_sync_read(
        pair.peer, pair.address, pair.there + SIZE - 32, 64
    ),
    "transfer_sync_write to memory that the peer has not registered": lambda pair: pair.engine.transfer_sync_write(
        pair.peer, pair.address, WILD, 64
    ),
    "transfer_sync_read of memory that the peer has not registered": lambda pair: pair.engine.transfer_sync_read(
        pair.peer, pair.address, WILD, 64
    ),
    "transfer_sync_write of a negative length": lambda pair: pair.write(0, 0, -1),
    "transfer_sync with a number as opcode": lambda pair: pair.engine.transfer_sync(pair.peer, pair.address, pair.there, 4, 1),
    "transfer_sync_write with a hint of a transport": lambda pair: pair.engine.transfer_sync_write(
        pair.peer, pair.address, pair.there, 4, "nonsense"
    ),
    "transfer_sync_write to a port where nothing listens": lambda pair: pair.write(peer=UNUSED),
    "transfer_sync_write to a name without a port": lambda pair: pair.write(peer="nonsense"),
    "transfer_sync_write to a host that no one can resolve": lambda pair: pair.write(peer="no.such.host.invalid:1"),
    "transfer_sync_write to the engine itself": lambda pair: pair.engine.transfer_sync_write(
        pair.session, pair.address, pair.address + 1000, 4
    ),
    "batch_transfer_sync, Write": lambda pair: pair.batch("batch_transfer_sync", [(0, 0, 4)], pair.opcode.Write),
    "batch_transfer_sync_write of none": lambda pair: pair.batch("batch_transfer_sync_write", []),
    "batch_transfer_sync_write, lists of different lengths": lambda pair: pair.engine.batch_transfer_sync_write(
        pair.peer, [pair.address] * 2, [pair.there], [4, 4]
    ),
}.items():
    row(_text)(_call)


@row("batch_transfer_sync_write, one not registered there: result, was the other written")
def _(pair: Pair) -> Any:
    before = pair.ask("bytes", 900, 4)
    pair.bytes[0:4] = bytes(255 - one for one in before)
    code = pair.engine.batch_transfer_sync_write(pair.peer, [pair.address] * 2, [pair.there + 900, WILD], [4, 4])
    return [code, pair.ask("bytes", 900, 4) != before]


# --- transfers that do not wait -------------------------------------------------------------------------------------------

for _text, _call in {
    "transfer_submit_write": lambda pair: pair.engine.transfer_submit_write(pair.peer, pair.address, pair.there, 4),
    "transfer_submit_write, transfer_check_status": lambda pair: pair.until_end(
        pair.engine.transfer_submit_write(pair.peer, pair.address, pair.there, 4)
    ),
    "the same to memory that the peer has not registered": lambda pair: pair.until_end(
        pair.engine.transfer_submit_write(pair.peer, pair.address, WILD, 4)
    ),
    "transfer_submit_write to a port where nothing listens": lambda pair: pair.engine.transfer_submit_write(
        UNUSED, pair.address, pair.there, 4
    ),
    "batch_transfer_async_write": lambda pair: pair.batch("batch_transfer_async_write", [(0, 0, 4)]),
    "batch_transfer_async_write, get_batch_transfer_status": lambda pair: pair.engine.get_batch_transfer_status(
        [pair.batch("batch_transfer_async_write", [(0, 0, 4)]) for _ in range(3)]
    ),
    "batch_transfer_async_read, get_batch_transfer_status": lambda pair: pair.engine.get_batch_transfer_status(
        [pair.batch("batch_transfer_async_read", [(0, 0, 4), (8, 8, 4)])]
    ),
    "batch_transfer_async, Write, transfer_check_status": lambda pair: pair.until_end(
        pair.batch("batch_transfer_async", [(0, 0, 4)], pair.opcode.Write)
    ),
    "batch_transfer_async_write to memory that the peer has not registered, get_batch_transfer_status": lambda pair: (
        pair.engine.get_batch_transfer_status([pair.engine.batch_transfer_async_write(pair.peer, [pair.address], [WILD], [4])])
    ),
    "batch_transfer_async_write, lists of different lengths": lambda pair: pair.engine.batch_transfer_async_write(
        pair.peer, [pair.address] * 2, [pair.there], [4]
    ),
    "batch_transfer_async_write to a port where nothing listens": lambda pair: pair.batch(
        "batch_transfer_async_write", [(0, 0, 4)], peer=UNUSED
    ),
    "get_batch_transfer_status of none": lambda pair: pair.engine.get_batch_transfer_status([]),
}.items():
    row(_text)(lambda pair, call=_call: (lambda found: "a number" if found > 1 else found)(call(pair)))


# --- messages -------------------------------------------------------------------------------------------------------------


def messages(pair: Pair) -> Any:
    deadline = time.monotonic() + 2
    while not (found := pair.ask("messages")) and time.monotonic() < deadline:
        pass
    return found


@row("transfer_sync with notify: result, what the peer gets, what it gets after that")
def _(pair: Pair) -> Any:
    code = pair.engine.transfer_sync(pair.peer, pair.address, pair.there, 4, pair.opcode.Write, pair.notify("name", "text"))
    return [code, messages(pair), pair.ask("messages")]


@row("batch_transfer_sync with notify, by name")
def _(pair: Pair) -> Any:
    code = pair.batch("batch_transfer_sync", [(0, 0, 4)], pair.opcode.Read, pair.notify(name="n", msg="ß€ \0 end" + "x" * 1000))
    return [code, [(name, len(text), text[:8]) for name, text in messages(pair)]]


@row("transfer_sync that fails, with notify: what the peer gets within 0.2 s")
def _(pair: Pair) -> Any:
    code = pair.engine.transfer_sync(pair.peer, pair.address, WILD, 4, pair.opcode.Write, pair.notify("name", "text"))
    time.sleep(0.2)
    return [code, pair.ask("messages")]


@row("a message with a name of 300 bytes: result, what the peer gets")
def _(pair: Pair) -> Any:
    pair.settle()
    code = pair.engine.transfer_sync(pair.peer, pair.address, pair.there, 4, pair.opcode.Write, pair.notify("n" * 300, "text"))
    return [code, [len(name) for name, _ in messages(pair)] if code == 0 else []]


@row("transfer_sync with a tuple for notify")
def _(pair: Pair) -> Any:
    return pair.engine.transfer_sync(pair.peer, pair.address, pair.there, 4, pair.opcode.Write, ("name", "text"))


@row("TransferOpcode, TransferNotify")
def _(pair: Pair) -> Any:
    read, note = pair.opcode.Read, pair.notify()
    return [str(read), int(read), pair.opcode.Write.value, pair.opcode(1).name, note.name, note.msg, pair.module.Read is not None]


# --- buffers of the engine ------------------------------------------------------------------------------------------------


@row("allocate_managed_buffer, write_bytes_to_buffer, read_bytes_from_buffer, free_managed_buffer")
def _(pair: Pair) -> Any:
    one = pair.engine
    address = one.allocate_managed_buffer(100)
    codes = [one.write_bytes_to_buffer(address, b"a\0\xffd", 4), one.write_bytes_to_buffer(address, "text", 1)]
    found = list(one.read_bytes_from_buffer(address, 4))
    sent = one.transfer_sync_write(pair.peer, address, pair.there + 1200, 4)
    return [*codes, found, sent, pair.ask("bytes", 1200, 4), one.free_managed_buffer(address, 100)]


for _text, _call in {
    "allocate_managed_buffer of 0 bytes": lambda pair: pair.engine.allocate_managed_buffer(0) != 0,
    "allocate_managed_buffer of 1 TiB": lambda pair: pair.engine.allocate_managed_buffer(1 << 40),
    "allocate_managed_buffer of -1 bytes": lambda pair: pair.engine.allocate_managed_buffer(-1),
    "write_bytes_to_buffer of more bytes than given": lambda pair: pair.engine.write_bytes_to_buffer(pair.address, b"x" * 8, 9),
}.items():
    row(_text)(_call)


# --- the peer ends --------------------------------------------------------------------------------------------------------


@row("a write after the peer has deregistered, and after it has registered again")
def _(pair: Pair) -> Any:
    codes = [pair.ask("unregister_memory", pair.there), pair.write()]
    codes += [pair.ask("register_memory", pair.there, SIZE)]
    pair.settle()
    return [*codes, pair.write()]


@row("send_probe of the peer")
def _(pair: Pair) -> Any:
    return pair.engine.send_probe(pair.peer)


@row("send_probe of a port where nothing listens")
def _(pair: Pair) -> Any:
    return pair.engine.send_probe(UNUSED)


@row("send_probe of a name without a port")
def _(pair: Pair) -> Any:
    return pair.engine.send_probe("nonsense")


@row("after the peer was killed: write")
def _(pair: Pair) -> Any:
    pair.target.kill()
    pair.target.wait()
    return pair.write()


for _text, _call in {
    "after the peer was killed: read": lambda pair: pair.engine.transfer_sync_read(pair.peer, pair.address, pair.there, 4),
    "after the peer was killed: batch_transfer_sync_write": lambda pair: pair.batch("batch_transfer_sync_write", [(0, 0, 4)]),
    "after the peer was killed: write with notify": lambda pair: pair.engine.transfer_sync(
        pair.peer, pair.address, pair.there, 4, pair.opcode.Write, pair.notify("name", "text")
    ),
    "after the peer was killed: send_probe": lambda pair: pair.engine.send_probe(pair.peer),
}.items():
    row(_text)(_call)
