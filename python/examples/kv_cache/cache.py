"""The memory of a cache: a torch tensor where torch is installed, else a numpy array."""

from typing import Any

import numpy

from content import Words
from model import Model

try:
    import torch  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    torch = None  # type: ignore[assignment, unused-ignore]

KIND = "numpy arrays" if torch is None else "torch tensors"


def new_memory(size: int) -> Any:
    """``size`` bytes, a multiple of 8: a tensor or an array of bytes, which is a buffer."""
    return numpy.zeros(size, dtype=numpy.uint8) if torch is None else torch.zeros(size, dtype=torch.uint8)


def address_of(memory: Any) -> int:
    """Where it begins."""
    return int(memory.ctypes.data if torch is None else memory.data_ptr())


def as_cache(memory: Any, model: Model, blocks: int) -> Any:
    """The same memory as the cache of a model: a tensor in bfloat16, or an array of its 16 bits, which numpy has no type for."""
    if torch is None:
        return numpy.frombuffer(memory, dtype=numpy.uint16).reshape(model.shape(blocks))
    flat = memory if isinstance(memory, torch.Tensor) else torch.frombuffer(memory, dtype=torch.uint8)
    return flat.view(torch.bfloat16).view(model.shape(blocks))


def as_words(cache: Any, model: Model, blocks: int) -> Words:
    """The same memory as words, to write and compare: [layer, half, block, word]."""
    array = cache if torch is None else cache.view(torch.int16).numpy()
    words: Words = array.view(numpy.uint64).reshape(model.layers, 2, blocks, model.piece_bytes // 8)
    # Now, and not while transfers are measured: the kernel makes pages when they are first touched.
    words.fill(0)
    return words
