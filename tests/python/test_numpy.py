"""numpy arrays as memory. By itself, so that only this counts as skipped where numpy is missing."""

import gc
import unittest
import weakref
from typing import Any

from pair import Pair

import flagcx_p2p

try:
    import numpy

    NO_NUMPY = ""
except ImportError as error:
    NO_NUMPY = f"numpy is not installed: {error}"


@unittest.skipIf(NO_NUMPY, NO_NUMPY)
class Numpy(Pair):
    def test_an_array_is_registered_in_place(self) -> None:
        values = numpy.arange(24, dtype=numpy.float32).reshape(4, 6)
        with self.client.register(values) as region:
            self.assertEqual((region.address, region.size), (values.ctypes.data, 96))
        with self.client.register(values[1:3]) as rows:
            self.assertEqual((rows.address, rows.size), (values.ctypes.data + 24, 48))
        with self.client.register(numpy.array(1.5)) as scalar:
            self.assertEqual(scalar.size, 8)

    def test_what_the_elements_are_does_not_matter(self) -> None:
        for kind in ("f2", "c16", "?", "u1", ">i4", "S5", "U3", "V7", "M8[ns]", "m8[s]", [("field O", "i4"), ("other", "f8")]):
            with self.subTest(kind):
                values = numpy.zeros((2, 3), dtype=kind)
                values.view("u1")[:] = numpy.frombuffer(self.source, "u1", values.nbytes).reshape(2, -1)
                with self.client.register(values) as region:
                    self.assertEqual((region.address, region.size), (values.ctypes.data, values.nbytes))
                    self.connection.write(region, self.remote.address)
                self.assertEqual(self.target[: values.nbytes], values.tobytes())
        # Sent as numbers of one type, received as those of another: the bytes are the same.
        numbers, words = numpy.arange(8, dtype=numpy.float64), numpy.zeros(16, dtype=numpy.uint32)
        with self.client.register(numbers) as local, self.server.register(words) as remote:
            self.connection.write(local, remote.address)
        self.assertTrue((words.view(numpy.float64) == numbers).all())

    def test_what_holds_python_objects_is_refused(self) -> None:
        for kind in (object, [("number", "i4"), ("object", object)]):
            with self.assertRaisesRegex(BufferError, "references to Python objects"):
                self.client.register(numpy.zeros(3, dtype=kind))

    def test_arrays_with_gaps_or_in_another_order_are_refused_with_the_remedy(self) -> None:
        values = numpy.zeros((4, 6))
        for part in (values[:, 1:3], values[::2], values[::-1], numpy.broadcast_to(numpy.zeros(6), (4, 6))):
            with self.assertRaisesRegex(BufferError, "numpy.ascontiguousarray"):
                self.client.register(part)
        fortran = numpy.asfortranarray(values)
        with self.assertRaisesRegex(BufferError, r"its transpose \(\.T\)"):
            self.client.register(fortran)
        with self.client.register(fortran.T) as region:
            self.assertEqual((region.address, region.size), (fortran.ctypes.data, values.nbytes))
        with self.assertRaisesRegex(ValueError, "is empty"):
            self.client.register(numpy.zeros((0, 4)))

    def test_read_only_arrays_are_read(self) -> None:
        values = numpy.arange(10)
        values.flags.writeable = False
        with self.server.register(values) as region:
            self.connection.read(self.local, region.address, size=80)
            self.assertEqual(self.source[:80], values.tobytes())
            with self.assertRaisesRegex(flagcx_p2p.P2pError, "for reading only"):
                self.connection.write(self.local, region.address, size=80)

    def test_an_array_is_kept_while_it_is_registered(self) -> None:
        values = numpy.arange(1000)
        told = weakref.ref(values)
        region = self.client.register(values)
        with self.assertRaisesRegex(ValueError, "cannot resize"):
            values.resize(5000)
        del values
        gc.collect()
        self.connection.write(region, self.remote.address)
        self.assertEqual(self.target[:8000], numpy.arange(1000).tobytes())
        region.close()
        self.assertIsNone(told())

    def test_dlpack_of_numpy_describes_the_same_memory(self) -> None:
        class Exchange:
            """Offers an array by DLPack only."""

            def __init__(self, values: "numpy.ndarray") -> None:
                self.values = values

            def __dlpack_device__(self) -> "tuple[int, int]":
                return self.values.__dlpack_device__()

            def __dlpack__(self, **arguments: Any) -> Any:
                return self.values.__dlpack__(**arguments)

        values = numpy.arange(24, dtype=numpy.int16).reshape(4, 6)[1:]
        told = weakref.ref(values)
        with self.client.register(Exchange(values)) as region:
            self.assertEqual((region.address, region.size), (values.ctypes.data, 36))
            expected = values.tobytes()
            del values
            gc.collect()
            self.connection.write(region, self.remote.address)
            self.assertEqual(self.target[:36], expected)
            self.assertIsNotNone(told())
        gc.collect()
        self.assertIsNone(told())

    def test_what_cannot_show_its_buffer_is_asked_in_another_way(self) -> None:
        class Elsewhere(numpy.ndarray):
            """As arrays of other libraries that have a buffer for memory of the host only."""

            @property
            def __array_interface__(self) -> Any:
                raise AttributeError("__array_interface__")

            def __dlpack__(self, **arguments: Any) -> Any:
                return self.view("i8").view(numpy.ndarray).__dlpack__(**arguments)

        values = numpy.zeros(10, dtype="M8[s]")
        with self.client.register(values.view(Elsewhere)) as region:
            self.assertEqual((region.address, region.size), (values.ctypes.data, 80))

    def test_an_array_keeps_allocated_memory(self) -> None:
        with flagcx_p2p.Engine() as engine:
            memory = engine.allocate(96)
            values = numpy.frombuffer(memory, dtype=numpy.float32).reshape(4, 6)
            same = numpy.frombuffer(memory.buf, dtype=numpy.float32)
            values[:] = 1.5
            self.assertEqual((values.ctypes.data, same.ctypes.data), (memory.address, memory.address))
            memory.close()
        self.assertEqual((values.sum(), same.sum()), (36, 36))


if __name__ == "__main__":
    unittest.main()
