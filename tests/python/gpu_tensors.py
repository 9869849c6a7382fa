"""Tensors in the memory of a real GPU, through the Python package. Needs the package and a CUDA driver; uses PyTorch where it is.

    python3 gpu_tensors.py                  over the driver of this machine
    python3 gpu_tensors.py --stand-in       over the stand-in of ../nullcuda, which needs a C compiler: tests this script

One line for each check, PASS or FAIL; a line with the counts at the end. Exits with 0 if all passed, with 1 otherwise, and with 77 if
there is no GPU.
"""

import os
import sys
import tempfile
import time
import traceback
from typing import Any, Callable

os.environ.setdefault("FLAGCX_P2P_FABRIC", "software")
os.environ.setdefault("FLAGCX_P2P_BIND", "127.0.0.1")

from cuda_driver import CudaArray, Driver, build_stand_in
from dlpack_objects import CUDA, READ_ONLY, DlpackArray
from flagcx_p2p import Connection, Engine, P2pError, Piece

SIZE = (1 << 20) + 12345
#: What is timed; of the stand-in little, for its speed says nothing.
LARGE, LITTLE = 256 << 20, 1 << 20
NOT_RUN = 77


class Checks:
    """Two connected engines, a buffer of the host at the far end, and the checks so far."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.passed = self.failed = 0
        self.here, self.there = Engine(), Engine()
        self.there.start_server()
        self.connection: Connection = self.here.connect(f"127.0.0.1:{self.there.port}")
        self.host = bytearray(SIZE)
        self.far = self.there.register(self.host)

    def run(self, name: str, check: "Callable[[], str | None]") -> None:
        started = time.perf_counter()
        try:
            note = check()
        except Exception:  # each check counts
            self.failed += 1
            print(f"FAIL  {name}", flush=True)
            traceback.print_exc(file=sys.stdout)
            return
        self.passed += 1
        print(f"PASS  {name}  {note or ''}  ({(time.perf_counter() - started) * 1e3:.1f} ms)", flush=True)

    def both_ways(self, tensor: Any, address: int, device: int) -> None:
        """From the GPU to the host, and back, with other bytes."""
        with self.here.register(tensor) as region:
            expect((region.address, region.size), (address, SIZE))
            content = os.urandom(SIZE)
            self.driver.put(address, content, device)
            self.host[:] = bytes(SIZE)
            self.connection.write(region, self.far.address)
            expect(bytes(self.host) == content, True)
            self.host[:] = os.urandom(SIZE)
            self.connection.read(region, self.far.address)
            expect(self.driver.get(address, SIZE, device) == bytes(self.host), True)
            before = self.driver.get(address, SIZE, device)
            self.host[:1000] = os.urandom(1000)
            self.connection.read(region[777:1777], self.far.address)
            expect(self.driver.get(address, SIZE, device), before[:777] + self.host[:1000] + before[1777:])

    def objects(self, device: int) -> None:
        address = self.driver.allocate(SIZE, device)
        try:
            kinds: "dict[str, Any]" = {
                "__cuda_array_interface__": CudaArray(address, (SIZE,)),
                "DLPack": DlpackArray(address, (SIZE,), device=(CUDA, device)),
                "DLPack before 1.0": DlpackArray(address, (SIZE,), device=(CUDA, device), version=None),
            }
            for name, tensor in kinds.items():
                self.run(f"GPU {device}, {name}: both ways", lambda: self.both_ways(tensor, address, device))
            self.run("DLPack is released once", lambda: expect([kinds[name].released for name in list(kinds)[1:]], [1, 1]))
            self.run(f"GPU {device}, read-only", lambda: self.read_only(address, device))
        finally:
            self.driver.free(address, device)
        self.run(f"GPU {device}, freed memory is refused", lambda: self.refused(CudaArray(address, (SIZE,)), P2pError))

    def read_only(self, address: int, device: int) -> None:
        for tensor in (CudaArray(address, (SIZE,), read_only=True), DlpackArray(address, (SIZE,), (CUDA, device), flags=READ_ONLY)):
            with self.here.register(tensor) as region:
                self.connection.write(region, self.far.address)
                try:
                    self.connection.read(region, self.far.address)
                except P2pError:
                    continue
                raise AssertionError("memory for reading only was written to")

    def refused(self, tensor: Any, kind: "type[Exception]") -> None:
        try:
            self.here.register(tensor)
        except kind:
            return
        raise AssertionError("it was registered")

    def between(self, source: int, target: int) -> None:
        """From one GPU to another one, or to the same, and both in one transfer."""
        ours, theirs = self.driver.allocate(SIZE, source), self.driver.allocate(SIZE, target)
        try:
            with self.here.register(CudaArray(ours, (SIZE,))) as local, self.there.register(CudaArray(theirs, (SIZE,))) as remote:
                content = os.urandom(SIZE)
                self.driver.put(ours, content, source)
                self.connection.write(local, remote.address)
                expect(self.driver.get(theirs, SIZE, target) == content, True)
                self.driver.put(theirs, bytes(SIZE), target)
                half = SIZE // 2
                with self.here.register(CudaArray(theirs, (SIZE,))) as other:
                    self.host[:] = bytes(SIZE)
                    self.connection.write_many(
                        [Piece(local[:half], self.far.address), Piece(other[half:], self.far.address + half)]
                    )
                    expect(bytes(self.host) == content[:half] + bytes(SIZE - half), True)
        finally:
            self.driver.free(ours, source)
            self.driver.free(theirs, target)

    def many(self) -> str:
        address = self.driver.allocate(1000 * 4096)
        try:
            started = time.perf_counter()
            regions = self.here.register_many([CudaArray(address + at, (4096,)) for at in range(0, 1000 * 4096, 4096)])
            took = time.perf_counter() - started
            for region in regions:
                region.close()
            return f"1,000 tensors in {took * 1e3:.1f} ms"
        finally:
            self.driver.free(address)

    def rate(self, size: int) -> str:
        address, room = self.driver.allocate(size), bytearray(size)
        try:
            with self.here.register(CudaArray(address, (size,))) as local, self.there.register(room) as remote:
                rates = []
                for move in (self.connection.write, self.connection.read):
                    move(local, remote.address)
                    started = time.perf_counter()
                    move(local, remote.address)
                    rates.append(size / (time.perf_counter() - started) / 1e9)
            return f"{size >> 20} MiB: {rates[0]:.1f} GB/s to the host, {rates[1]:.1f} GB/s from it, host memory not pinned"
        finally:
            self.driver.free(address)

    def torch(self) -> None:
        try:
            import torch  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            print(f"not run: PyTorch: {error}")
            return
        if not torch.cuda.is_available():
            print("not run: PyTorch has no GPU")
            return

        def moves(kind: Any) -> None:
            source = torch.randint(0, 100, (64, 1000), device="cuda").to(kind)
            target = torch.zeros(64, 1000, dtype=kind)
            torch.cuda.synchronize()
            with self.here.register(source) as local, self.there.register(target) as remote:
                self.connection.write(local, remote.address)
                expect(bool((source.cpu().view(torch.uint8) == target.view(torch.uint8)).all()), True)

        for name in ("float32", "bfloat16", "float8_e4m3fn"):
            if hasattr(torch, name):
                self.run(f"PyTorch {torch.__version__}, {name}", lambda: moves(getattr(torch, name)))
        parameter = torch.nn.Parameter(torch.ones(1000, device="cuda"))
        self.run("PyTorch, a parameter that requires gradients", lambda: self.here.register(parameter).close())
        self.run("PyTorch, not contiguous: refused", lambda: self.refused(torch.ones(8, 8, device="cuda").t(), BufferError))


def expect(found: Any, expected: Any) -> None:
    if found != expected:
        raise AssertionError(f"{str(found)[:200]} is not {str(expected)[:200]}")


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        stand_in = sys.argv[1:] == ["--stand-in"]
        if stand_in:
            driver = Driver(build_stand_in(folder))
        else:
            try:
                driver = Driver.of_this_machine()
            except OSError as error:
                print(f"not run: {error}")
                return NOT_RUN
    checks = Checks(driver)
    for device in range(driver.devices):
        print(f"GPU {device}: {driver.name(device)}")
        checks.objects(device)
    checks.run("GPU 0 to GPU 0", lambda: checks.between(0, 0))
    if driver.devices > 1:
        checks.run("GPU 0 to GPU 1", lambda: checks.between(0, 1))
    else:
        print("not run: between two GPUs: there is one")
    checks.run("register_many", checks.many)
    checks.run("rate", lambda: checks.rate(LITTLE if stand_in else LARGE))
    checks.torch()
    print(f"{checks.passed} passed, {checks.failed} failed")
    checks.here.close()
    checks.there.close()
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
