"""numpy arrays as memory. By itself, so that only this counts as skipped where numpy is missing."""

import unittest

import pair  # noqa: F401  the engine's environment
import flagcx_p2p

try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment]


@unittest.skipIf(numpy is None, "numpy is not installed")
class Numpy(unittest.TestCase):
    def test_an_array_is_registered_in_place(self) -> None:
        with flagcx_p2p.Engine() as engine:
            values = numpy.arange(24, dtype=numpy.float32).reshape(4, 6)
            region = engine.register(values)
            self.assertEqual((region.address, region.size), (values.ctypes.data, 96))

    def test_an_array_keeps_allocated_memory(self) -> None:
        with flagcx_p2p.Engine() as engine:
            memory = engine.allocate(96)
            values = numpy.frombuffer(memory.buf, dtype=numpy.float32).reshape(4, 6)
            values[:] = 1.5
            self.assertEqual(values.ctypes.data, memory.address)
            memory.close()
        self.assertEqual(values.sum(), 36)


if __name__ == "__main__":
    unittest.main()
