"""Tensors of PyTorch. By itself, so that only this counts as skipped where PyTorch is missing."""

import gc
import unittest
import weakref

from pair import Pair

import flagcx_p2p

try:
    import torch

    NO_TORCH = ""
except ImportError as error:
    NO_TORCH = f"PyTorch is not installed: {error}"


@unittest.skipIf(NO_TORCH, NO_TORCH)
class Torch(Pair):
    def test_tensors_move(self) -> None:
        for kind in (torch.float32, torch.bfloat16, torch.int8, torch.bool, torch.complex64):
            with self.subTest(kind):
                source, target = torch.ones(4, 6, dtype=kind), torch.zeros(4, 6, dtype=kind)
                with self.client.register(source) as local, self.server.register(target) as remote:
                    self.assertEqual((local.address, local.size), (source.data_ptr(), 24 * source.element_size()))
                    self.connection.write(local, remote.address)
                self.assertTrue(torch.equal(source, target))

    def test_those_that_require_gradients_move(self) -> None:
        layer, target = torch.nn.Linear(8, 8), torch.zeros(8, 8)
        with self.client.register(layer.weight) as local, self.server.register(target) as remote:
            self.connection.write(local, remote.address)
        self.assertTrue(torch.equal(layer.weight.detach(), target))
        self.assertTrue(layer.weight.requires_grad)

    def test_the_memory_is_kept_also_when_the_tensor_gets_other_data(self) -> None:
        source = torch.full((1000,), 7, dtype=torch.uint8)
        told = weakref.ref(source)
        with self.client.register(source) as region:
            source.data = torch.zeros(10, dtype=torch.uint8)
            del source
            gc.collect()
            self.connection.write(region, self.remote.address)
            self.assertEqual(self.target[:1000], bytes([7] * 1000))
        self.assertIsNone(told())

    def test_parts_register_and_what_is_not_contiguous_does_not(self) -> None:
        whole = torch.arange(64, dtype=torch.int64).reshape(8, 8)
        with self.client.register(whole[2:4]) as region:
            self.assertEqual((region.address, region.size), (whole.data_ptr() + 128, 128))
        for part in (whole.t(), whole[:, 2:4], whole[::2], torch.ones(1).expand(5)):
            with self.assertRaisesRegex(BufferError, r"tensor\.contiguous\(\)"):
                self.client.register(part)
        with self.client.register(whole.t().contiguous()) as region:
            self.assertEqual(region.size, 512)
        with self.assertRaisesRegex(ValueError, "is empty"):
            self.client.register(torch.zeros(0, 4))
        with self.assertRaisesRegex(BufferError, "resolve_conj"):
            self.client.register(torch.ones(4, dtype=torch.complex64).conj())
        for other in (torch.eye(3).to_sparse(), torch.ones(3, device="meta")):
            with self.assertRaises(BufferError):
                self.client.register(other)

    def test_a_thousand_are_registered_at_once(self) -> None:
        parameters = [torch.full((64,), index, dtype=torch.int32) for index in range(1000)]
        targets = [torch.zeros(64, dtype=torch.int32) for _ in parameters]
        local, remote = self.client.register_many(parameters), self.server.register_many(targets)
        self.connection.write_many([flagcx_p2p.Piece(ours, theirs.address) for ours, theirs in zip(local, remote)])
        self.assertTrue(all(torch.equal(*pair) for pair in zip(parameters, targets)))


if __name__ == "__main__":
    unittest.main()
