"""Tensors: PyTorch's (played here: test_torch.py has real ones), those of DLPack and of ``__cuda_array_interface__``; memory of GPUs is played by ../nullcuda."""

import array
import ctypes
import gc
import pathlib
import subprocess
import sys
import tempfile
import types
import unittest
import weakref
from typing import Any, Optional
from unittest import mock

from pair import Pair
from programs import Program

import flagcx_p2p
from cuda_driver import CudaArray, Driver, build_stand_in
from dlpack_objects import (
    CPU,
    CUDA,
    CUDA_HOST,
    CUDA_MANAGED,
    IS_COPIED,
    OPENCL,
    PADDED,
    READ_ONLY,
    ROCM,
    DlpackArray,
)
from flagcx_p2p import Engine, P2pError

_folder = tempfile.TemporaryDirectory()
#: Loaded once, for all tests of the process.
_driver: "list[Driver]" = []


def played() -> Driver:
    if not _driver:
        _driver.append(Driver(build_stand_in(_folder.name)))
    return _driver[0]


def address_of(buffer: Any) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


class FakeTensor:
    """What is asked of a tensor; ``detach`` answers another one over the same memory."""

    def __init__(self, buffer: Any, device: str = "cpu", **answers: Any) -> None:
        self.buffer, self.answers = buffer, answers
        self.device = types.SimpleNamespace(type=device, index=None)

    def __getattr__(self, name: str) -> Any:
        if name == "untyped_storage":
            storage = {"data_ptr": self.data_ptr, "nbytes": lambda: self.answers.get("nbytes", len(self.buffer))}
            return lambda: types.SimpleNamespace(**storage)
        answers = {"numel": len(self.buffer), "element_size": 1, "is_contiguous": True, "is_conj": False, "is_neg": False}
        answers.update(self.answers)
        if name not in answers:
            raise AttributeError(name)
        return lambda: answers[name]

    def data_ptr(self) -> int:
        return self.answers.get("data_ptr") or address_of(self.buffer)

    def detach(self) -> "FakeTensor":
        return FakeTensor(self.buffer)


class Torch(Pair):
    """By the methods of tensors, played by an object, so that each answer can be had."""

    def setUp(self) -> None:
        super().setUp()
        fake = types.ModuleType("torch")
        fake.Tensor = FakeTensor  # type: ignore[attr-defined]
        patched = mock.patch.dict(sys.modules, {"torch": fake})
        patched.start()
        self.addCleanup(patched.stop)

    def refused(self, text: str, tensor: FakeTensor, kind: "type[Exception]" = BufferError) -> None:
        with self.assertRaisesRegex(kind, text):
            self.client.register(tensor)

    def test_a_tensor_is_registered_where_it_is_and_its_memory_kept(self) -> None:
        class Memory(bytearray):
            pass

        memory = Memory(b"t" * 400)
        told = weakref.ref(memory)
        with self.client.register(FakeTensor(memory, numel=100, element_size=4)) as region:
            self.assertEqual((region.address, region.size), (address_of(memory), 400))
            del memory
            gc.collect()
            self.connection.write(region, self.remote.address)
            self.assertEqual(self.target[:400], b"t" * 400)
            self.assertIsNotNone(told())
        gc.collect()
        self.assertIsNone(told())

    def test_what_is_not_one_range_of_memory_is_refused_with_the_remedy(self) -> None:
        memory = bytearray(100)
        self.refused(r"not contiguous.* Register tensor\.contiguous\(\)", FakeTensor(memory, is_contiguous=False))
        self.refused(r"register tensor\.resolve_conj\(\)", FakeTensor(memory, is_conj=True))
        self.refused(r"register tensor\.resolve_neg\(\)", FakeTensor(memory, is_neg=True))
        self.refused("is empty", FakeTensor(memory, numel=0), ValueError)
        self.refused("should have 100 bytes of memory, and has 40: its storage has been resized", FakeTensor(memory, nbytes=40))

        class Sparse(FakeTensor):
            def data_ptr(self) -> int:
                raise RuntimeError("Cannot access data pointer of Tensor that doesn't have storage")

        with self.assertRaisesRegex(BufferError, "no memory that can be registered: Cannot access") as caught:
            self.client.register(Sparse(memory))
        self.assertIsInstance(caught.exception.__cause__, RuntimeError)
        memory.append(1)

    def test_devices_that_the_engine_does_not_know_are_named(self) -> None:
        for device in ("meta", "npu", "xpu"):
            self.refused(f"memory of the device {device},.*register_address", FakeTensor(bytearray(10), device))

    def test_other_objects_are_none_of_its_business(self) -> None:
        self.client.register(bytearray(10)).close()
        with mock.patch.dict(sys.modules, {"torch": types.ModuleType("torch")}):
            self.client.register(bytearray(10)).close()


class Dlpack(Pair):
    def setUp(self) -> None:
        super().setUp()
        self.memory = bytearray(range(200))
        self.address = address_of(self.memory)

    def test_it_is_registered_where_it_is_and_released_once(self) -> None:
        for version in (None, (1, 0), (1, 3)):
            with self.subTest(version):
                tensor = DlpackArray(self.address, (10, 5), strides=(5, 1), bits=16, byte_offset=20, version=version)
                with self.client.register(tensor) as region:
                    self.assertEqual((region.address, region.size), (self.address + 20, 100))
                    self.connection.write(region, self.remote.address)
                    self.assertEqual(self.target[:100], self.memory[20:120])
                    self.assertEqual((tensor.exported, tensor.released, tensor.stream), (1, 0, None))
                region.close()
                self.assertEqual(tensor.released, 1)

    def test_the_end_of_the_engine_releases_it(self) -> None:
        tensor = DlpackArray(self.address, (10,))
        engine = Engine()
        engine.register(tensor)
        gc.collect()
        self.assertEqual(tensor.released, 0)
        engine.close()
        self.assertEqual(tensor.released, 1)

    def test_read_only_is_read_only(self) -> None:
        tensor = DlpackArray(self.address, (10,), flags=READ_ONLY)
        with self.server.register(tensor) as region:
            self.connection.read(self.local, region.address, size=10)
            with self.assertRaisesRegex(P2pError, "for reading only"):
                self.connection.write(self.local, region.address, size=10)
        with self.assertRaisesRegex(BufferError, "read_only=False"):
            self.client.register(DlpackArray(self.address, (10,), flags=READ_ONLY), read_only=False)

    def test_elements_smaller_than_a_byte_are_counted(self) -> None:
        for bits, flags, bytes_ in ((4, 0, 13), (4, PADDED, 25), (6, 0, 19), (8, PADDED, 25)):
            with self.client.register(DlpackArray(self.address, (25,), bits=bits, flags=flags)) as region:
                self.assertEqual(region.size, bytes_)

    def test_what_is_refused_is_released_once(self) -> None:
        refused = (
            (DlpackArray(self.address, (4, 5), strides=(1, 4)), BufferError, "not contiguous"),
            (DlpackArray(self.address, (4, 5), strides=(10, 1)), BufferError, "not contiguous"),
            (DlpackArray(self.address, (4, 5), strides=(0, 1)), BufferError, "not contiguous"),
            (DlpackArray(self.address, (4, 0)), ValueError, "is empty"),
            (DlpackArray(self.address, (4, -5)), BufferError, "negative"),
            (DlpackArray(self.address, (1 << 40, 1 << 40)), BufferError, "overflow"),
            (DlpackArray(0, (4,)), BufferError, "its address is 0"),
            (DlpackArray(self.address, (4,), byte_offset=(1 << 64) - 1), BufferError, "beyond all memory"),
            (DlpackArray(self.address, (4,), flags=IS_COPIED), BufferError, "gives a copy"),
            (DlpackArray(self.address, (4,), version=(2, 0)), BufferError, "version"),
            (DlpackArray(self.address, (4,), version=(1, 2)), BufferError, "requires explicit strides"),
        )
        for tensor, kind, text in refused:
            with self.subTest(text), self.assertRaisesRegex(kind, text):
                self.client.register(tensor)
            self.assertEqual((tensor.exported, tensor.released), (1, 1), text)
        # An extent of one has no neighbour: its stride says nothing.
        with self.client.register(DlpackArray(self.address, (1, 5, 1), strides=(77, 1, 99))) as region:
            self.assertEqual(region.size, 5)
        many = [DlpackArray(self.address + at, (4,)) for at in range(0, 40, 4)]
        with self.assertRaisesRegex(BufferError, "buffer 10: "):
            self.client.register_many([*many, DlpackArray(self.address, (4, 5), strides=(1, 4))])
        self.assertEqual([tensor.released for tensor in many], [1] * 10)

    def test_devices_that_the_engine_does_not_know_are_not_asked_for_memory(self) -> None:
        tensor = DlpackArray(self.address, (4,), device=(OPENCL, 0))
        with self.assertRaisesRegex(BufferError, "type 4 of DLPack.*register_address"):
            self.client.register(tensor)
        self.assertEqual(tensor.exported, 0)

    def test_pinned_and_managed_memory_is_memory_of_the_host(self) -> None:
        for device, stream in ((CUDA_HOST, None), (CUDA_MANAGED, -1)):
            tensor = DlpackArray(self.address, (10,), device=(device, 0))
            with self.client.register(tensor) as region:
                self.connection.write(region, self.remote.address)
                self.assertEqual((self.target[:10], tensor.stream), (self.memory[:10], stream))

    def test_one_that_is_registered_when_the_interpreter_ends_is_no_error(self) -> None:
        program = """
import pair
from dlpack_objects import DlpackArray
from flagcx_p2p import Engine
import ctypes
memory = ctypes.create_string_buffer(100)
engine = Engine()
region = engine.register(DlpackArray(ctypes.addressof(memory), (10,)))
print("end")
"""
        self.assertEqual(Program(program).end(30), ("end\n", ""))

    def test_what_is_no_capsule_is_refused(self) -> None:
        class Wrong:
            def __dlpack_device__(self) -> "tuple[int, int]":
                return (CPU, 0)

            def __dlpack__(self, **_: Any) -> Any:
                return 5

        with self.assertRaisesRegex(BufferError, "gives no capsule"):
            self.client.register(Wrong())


class WithoutGpu(unittest.TestCase):
    def test_memory_of_a_gpu_is_refused_where_no_driver_is_loaded(self) -> None:
        # By itself: this process loads the played driver.
        program = """
import pair, ctypes, sys, types
from cuda_driver import CudaArray
from dlpack_objects import CUDA, ROCM, DlpackArray
from flagcx_p2p import Engine
memory = ctypes.create_string_buffer(100)
address = ctypes.addressof(memory)
gpu = [CudaArray(address, (10,)), DlpackArray(address, (10,), device=(CUDA, 0)), DlpackArray(address, (10,), device=(ROCM, 1))]
with Engine() as engine:
    for tensor in gpu:
        try:
            engine.register(tensor)
        except BufferError as error:
            print("libcuda.so.1" in str(error), "register_address" in str(error))
print([tensor.released for tensor in gpu[1:]])
"""
        output, errors = Program(program).end(30)
        self.assertEqual((output.split("\n"), errors), (["True True"] * 3 + ["[1, 1]", ""], ""))


class Script(unittest.TestCase):
    def test_the_one_for_real_gpus_passes_over_the_played_ones(self) -> None:
        script = pathlib.Path(__file__).with_name("gpu_tensors.py")
        ran = subprocess.run([sys.executable, script, "--stand-in"], capture_output=True, text=True, timeout=100)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        self.assertRegex(ran.stdout, r"\n16 passed, 0 failed\n")


class Gpus(Pair):
    """Memory of two GPUs, which the CPU cannot access."""

    gpu: Driver

    @classmethod
    def setUpClass(cls) -> None:
        cls.gpu = played()

    def setUp(self) -> None:
        super().setUp()
        self.near = self.allocate(0)

    def allocate(self, device: int) -> int:
        address = self.gpu.allocate(self.SIZE, device)
        # After the engines, which clean-ups of before end later than this: what is registered is closed in each test.
        self.addCleanup(self.gpu.free, address, device)
        return address

    def described(self, address: int, device: int) -> "dict[str, Any]":
        """The same memory as each kind of object."""
        return {
            "interface": CudaArray(address, (self.SIZE,)),
            "dlpack": DlpackArray(address, (self.SIZE,), device=(CUDA, device)),
            "dlpack before 1.0": DlpackArray(address, (self.SIZE,), device=(CUDA, device), version=None),
        }

    def test_bytes_move_between_the_host_and_a_gpu(self) -> None:
        for name, tensor in self.described(self.near, 0).items():
            with self.subTest(name), self.client.register(tensor) as region:
                self.assertEqual((region.address, region.size), (self.near, self.SIZE))
                self.gpu.put(self.near, bytes(self.source))
                self.target[:] = bytes(self.SIZE)
                self.connection.write(region, self.remote.address)
                self.assertEqual(self.target, self.source)
                self.target[:100] = b"g" * 100
                self.connection.read(region[50:150], self.remote.address)
                self.assertEqual(self.gpu.get(self.near, 200), self.source[:50] + b"g" * 100 + self.source[150:200])
            self.assertEqual(getattr(tensor, "stream", -1), -1)
            self.assertEqual(getattr(tensor, "released", 1), 1)

    def test_a_torch_tensor_of_a_gpu_moves(self) -> None:
        fake = types.ModuleType("torch")
        fake.Tensor = FakeTensor  # type: ignore[attr-defined]
        self.gpu.put(self.near, bytes(self.source))
        with mock.patch.dict(sys.modules, {"torch": fake}):
            tensor = FakeTensor(bytes(self.SIZE), "cuda", data_ptr=self.near)
            with self.client.register(tensor) as region:
                self.assertEqual(region.address, self.near)
                self.connection.write(region, self.remote.address)
        self.assertEqual(self.target, self.source)

    def test_tensors_of_two_gpus_are_registered_with_one_engine(self) -> None:
        far = self.allocate(1)
        for name in self.described(0, 0):
            here, there = self.described(self.near, 0)[name], self.described(far, 1)[name]
            with self.subTest(name), self.client.register(here) as zero, self.client.register(there) as one:
                self.gpu.put(far, bytes(self.source), 1)
                self.target[:] = bytes(self.SIZE)
                self.connection.write(one, self.remote.address)
                self.assertEqual(self.target, self.source)
                self.gpu.put(self.near, bytes(self.SIZE))
                self.connection.read(zero, self.remote.address)
                self.assertEqual(self.gpu.get(self.near, self.SIZE), self.source)
                # Both in one transfer.
                self.target[:] = bytes(self.SIZE)
                half = self.SIZE // 2
                pieces = [flagcx_p2p.Piece(zero[:half], self.remote.address), flagcx_p2p.Piece(one[half:], self.remote.address + half)]
                self.connection.write_many(pieces)
                self.assertEqual(self.target, self.source)

    def test_an_engine_of_another_gpu_takes_it_too(self) -> None:
        far = self.allocate(1)
        with Engine(gpu=1) as engine, engine.register(CudaArray(self.near, (self.SIZE,))) as region, engine.register(
            CudaArray(far, (self.SIZE,))
        ) as other:
            engine.start_server()
            self.gpu.put(self.near, bytes(self.source))
            connection = engine.connect(f"127.0.0.1:{self.server.port}")
            connection.write(region, self.remote.address)
            self.assertEqual(self.target, self.source)
            # From GPU to GPU.
            back = self.client.connect(f"127.0.0.1:{engine.port}")
            with self.client.register(CudaArray(self.near, (self.SIZE,))) as ours:
                back.write(ours, other.address)
            self.assertEqual(self.gpu.get(far, self.SIZE, 1), self.source)

    def test_what_is_read_only_is_only_read(self) -> None:
        with self.client.register(CudaArray(self.near, (self.SIZE,), read_only=True)) as region:
            self.connection.write(region, self.remote.address)
            with self.assertRaisesRegex(P2pError, "only"):
                self.connection.read(region, self.remote.address)

    def test_the_elements_of_an_interface_are_counted(self) -> None:
        for kind, size in (("<f4", 200), ("<V2", 100), ("|b1", 50), ("<M8[ns]", 400), ("<U3", 600), ("<c16", 800)):
            with self.client.register(CudaArray(self.near, (10, 5), kind)) as region:
                self.assertEqual(region.size, size)
        with self.client.register(CudaArray(self.near, (1, 5), "<f4", strides=(99, 4))) as region:
            self.assertEqual(region.size, 20)

    def test_the_interface_is_checked(self) -> None:
        for more, kind, text in (
            ({"typestr": "|O8"}, BufferError, "mean anything"),
            ({"typestr": "|t3"}, BufferError, "mean anything"),
            ({"typestr": "<"}, BufferError, "mean anything"),
            ({"typestr": 5}, BufferError, "its \"typestr\""),
            ({"shape": (-1, 10)}, BufferError, "its shape"),
            ({"shape": (1 << 40, 1 << 40)}, BufferError, "its shape"),
            ({"shape": None}, BufferError, "it has no \"shape\""),
            ({"shape": (0, 10)}, ValueError, "is empty"),
            ({"data": (0, False)}, BufferError, "its address is 0"),
            ({"data": (-1, False)}, BufferError, "its \"data\""),
            ({"data": None}, BufferError, "it has no \"data\""),
            ({"strides": (1, 10)}, BufferError, "not contiguous"),
            ({"strides": (20, 1)}, BufferError, "not contiguous"),
            ({"strides": (1,)}, BufferError, "not contiguous"),
            ({"mask": self}, BufferError, "it has a mask"),
            ({"stream": 0}, BufferError, "its stream is 0"),
        ):
            with self.subTest(text), self.assertRaisesRegex(kind, text):
                described = CudaArray(self.near, (10, 10))
                described.__cuda_array_interface__.update(more)  # type: ignore[arg-type]
                self.client.register(described)
        with self.assertRaisesRegex(BufferError, "cannot be used"):
            self.client.register(types.SimpleNamespace(__cuda_array_interface__=7))
        for stream in (1, 2, 0x7F00_0000_0000):
            self.client.register(CudaArray(self.near, (10,), stream=stream)).close()

    def test_host_memory_by_array_interface_alone_is_not_taken(self) -> None:
        # It may be that of a copy that is gone.
        described = types.SimpleNamespace(__array_interface__={"shape": (10,), "typestr": "|u1", "data": (self.local.address, False)})
        with self.assertRaisesRegex(TypeError, "has no memory that can be registered"):
            self.client.register(described)

    def test_managed_memory_is_memory_of_the_host(self) -> None:
        address = self.gpu.allocate_managed(self.SIZE)
        self.addCleanup(self.gpu.free, address)
        with self.client.register(CudaArray(address, (self.SIZE,))) as region:
            self.gpu.put(address, bytes(self.source))
            self.connection.write(region, self.remote.address)
        self.assertEqual(self.target, self.source)

    def test_an_address_that_no_gpu_knows_is_not_registered(self) -> None:
        freed = self.gpu.allocate(4096)
        self.gpu.free(freed)
        for tensor in (CudaArray(freed, (4096,)), DlpackArray(freed, (4096,), device=(CUDA, 0))):
            with self.assertRaisesRegex(P2pError, f"{freed:#x}"):
                self.client.register(tensor)

    def test_many_are_registered_or_none(self) -> None:
        tensors = [CudaArray(self.near + at, (64,)) for at in range(0, self.SIZE, 64)]
        regions = self.client.register_many(tensors)
        self.assertEqual(len(regions), self.SIZE // 64)
        for region in regions:
            region.close()
        with self.assertRaisesRegex(BufferError, "buffer 1024: "):
            self.client.register_many([*tensors, CudaArray(self.near, (10,), strides=(2,))])


if __name__ == "__main__":
    unittest.main()
