"""checkpoint-engine's own P2PStore, with one changed import, between two processes: it needs the package `checkpoint_engine`, and loguru.

    checkpoint_engine_run.py flagcx_p2p.mooncake
    checkpoint_engine_run.py mooncake.engine

An owner registers tensors, a receiver reads them in buckets, the owner is killed and started again. The store runs as it is, but for the
line that imports the engine. Its DeviceManager refuses hosts without a GPU: here stands what the store asks of it.

With torch the whole package is imported, and the tensors are torch's. Without it, which is 3 GB with its libraries of CUDA, the store and the
file that it imports are run alone, over a stand-in: all that the store asks of a tensor is its address and its size.
"""

import ctypes
import importlib.util
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
import types
from typing import Any

HAS_TORCH = importlib.util.find_spec("torch") is not None
IMPORT = "from mooncake.engine import TransferEngine"
SIZE, PIECES = 32 << 20, 8


class Device:
    """Two CPU "devices" without a NIC."""

    transfer_engine_protocol = "rdma"

    class device_module:
        @staticmethod
        def device_count() -> int:
            return 2

    def rdma_device(self, rank: int) -> str:
        return ""


class Tensor:
    """In place of torch's: bytes at an address."""

    def __init__(self, content: bytearray) -> None:
        self.content, self.nbytes = content, len(content)

    def data_ptr(self) -> int:
        return ctypes.addressof(ctypes.c_char.from_buffer(self.content))


def changed_package(module: str, folder: str) -> None:
    """A copy of the installed package in which that line is changed. It is one line, in one file."""
    found = importlib.util.find_spec("checkpoint_engine")
    assert found is not None and found.origin is not None
    source = pathlib.Path(found.origin).parent
    lines = {path: path.read_text().count(IMPORT) for path in source.rglob("*.py")}
    assert {path.name: count for path, count in lines.items() if count} == {"p2p_store.py": 1}, lines
    shutil.copytree(source, pathlib.Path(folder) / "checkpoint_engine")
    store = pathlib.Path(folder) / "checkpoint_engine" / "p2p_store.py"
    store.write_text(store.read_text().replace(IMPORT, f"from {module} import TransferEngine"))
    if not HAS_TORCH:
        # It imports all other files, which need torch.
        (store.parent / "__init__.py").write_text("")


def new_store(rank: int) -> Any:
    os.environ["RANK"] = str(rank)
    if not HAS_TORCH:
        sys.modules["torch"] = stand_in = types.ModuleType("torch")
        setattr(stand_in, "Tensor", Tensor)
    from checkpoint_engine.p2p_store import P2PStore

    return P2PStore(Device())


def content(seed: int) -> bytes:
    return random.Random(seed).randbytes(SIZE)


def tensor(content: bytes) -> Any:
    memory = bytearray(content)
    if not HAS_TORCH:
        return Tensor(memory)
    import torch

    return torch.frombuffer(memory, dtype=torch.uint8)


def has(tensor: Any, content: bytes) -> bool:
    """Whether these are all of its bytes."""
    return ctypes.string_at(tensor.data_ptr(), tensor.nbytes) == content


def own(seed: int) -> None:
    store, tensors = new_store(0), {f"memory_pool_{number}": tensor(content(seed + number)) for number in range(2)}
    store.register_named_tensors(tensors)
    print(json.dumps([store.addr, [tensor.data_ptr() for tensor in tensors.values()]]), flush=True)
    sys.stdin.read()


class Owner:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        command = [sys.executable, __file__, "--owner", str(seed)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.session, self.addresses = json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def update(store: Any, owner: Owner) -> float:
    """Both tensors, in buckets, into the registered buffer; every byte is compared. Answers the seconds of the reads."""
    buffer, seconds, part = tensor(bytes(SIZE)), 0.0, SIZE // PIECES
    store.register_named_tensors({"__ipc_buffer__": buffer})
    try:
        for number, address in enumerate(owner.addresses):
            offsets = [index * part for index in range(PIECES)]
            begun = time.perf_counter()
            store.batch_transfer_sync_read(
                owner.session, [buffer.data_ptr() + one for one in offsets], [address + one for one in offsets], [part] * PIECES
            )
            seconds += time.perf_counter() - begun
            assert has(buffer, content(owner.seed + number)), "other bytes"
    finally:
        assert store.unregister_named_tensors(["__ipc_buffer__"]) == 1
    return seconds


def run() -> None:
    owner = Owner(1)
    store = new_store(1)
    first, second = update(store, owner), update(store, owner)
    owner.kill()
    try:
        update(store, owner)
    except AssertionError as error:
        assert str(error) != "other bytes"
    else:
        raise SystemExit("a read from a process that was killed was called a success")
    owner = Owner(100)
    third = update(store, owner)
    owner.kill()
    gib = 2 * SIZE / (1 << 30)
    over = "torch's tensors" if HAS_TORCH else "a stand-in for torch"
    print(f"checkpoint-engine's P2PStore over {over}: {gib / first:.2f}, {gib / second:.2f}, after a restart {gib / third:.2f} GiB/s; all bytes compared")


def main() -> None:
    if sys.argv[1] == "--owner":
        own(int(sys.argv[2]))
    elif sys.argv[1] == "--receiver":
        run()
    else:
        with tempfile.TemporaryDirectory() as folder:
            changed_package(sys.argv[1], folder)
            path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
            environment = {"FLAGCX_P2P_FABRIC": "software", "LOGURU_LEVEL": "WARNING", **os.environ, "PYTHONPATH": path}
            raise SystemExit(subprocess.run([sys.executable, __file__, "--receiver"], env=environment, timeout=300).returncode)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
