"""The state of a model: its tensors by name, in torch where that is installed, else in numpy."""

from typing import Any, TypeAlias

import numpy
from numpy.typing import NDArray

try:
    import torch  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    torch = None  # type: ignore[assignment, unused-ignore]

KIND = "numpy arrays" if torch is None else "torch tensors"
Words: TypeAlias = NDArray[numpy.uint64]

_WIDTH, _LAYERS, _VOCABULARY = 768, 12, 50257


def shapes(layers: int = _LAYERS, vocabulary: int = _VOCABULARY) -> "dict[str, tuple[int, ...]]":
    """Those of openai-community/gpt2, 124 million numbers: names as in its file model.safetensors."""
    found: "dict[str, tuple[int, ...]]" = {"wte.weight": (vocabulary, _WIDTH), "wpe.weight": (1024, _WIDTH)}
    for layer in range(layers):
        for name, shape in _LAYER.items():
            found[f"h.{layer}.{name}.weight"] = shape
            found[f"h.{layer}.{name}.bias"] = shape[-1:]
    return found | {"ln_f.weight": (_WIDTH,), "ln_f.bias": (_WIDTH,)}


_LAYER = {
    "ln_1": (_WIDTH,),
    "attn.c_attn": (_WIDTH, 3 * _WIDTH),
    "attn.c_proj": (_WIDTH, _WIDTH),
    "ln_2": (_WIDTH,),
    "mlp.c_fc": (_WIDTH, 4 * _WIDTH),
    "mlp.c_proj": (4 * _WIDTH, _WIDTH),
}


def new_state(layers: int = _LAYERS, vocabulary: int = _VOCABULARY) -> "dict[str, Any]":
    """Tensors of zeros, in bfloat16: as arrays its 16 bits, which numpy has no type for."""
    state = {name: _zeros(shape) for name, shape in shapes(layers, vocabulary).items()}
    for tensor in state.values():
        # Now, and not while something is measured: the kernel makes pages when they are first touched.
        rows_of(tensor).fill(0)
    return state


def _zeros(shape: "tuple[int, ...]") -> Any:
    return numpy.zeros(shape, dtype=numpy.uint16) if torch is None else torch.zeros(shape, dtype=torch.bfloat16)


def address_of(tensor: Any) -> int:
    return int(tensor.ctypes.data if torch is None else tensor.data_ptr())


def rows_of(tensor: Any) -> Words:
    """The same memory as words of 64 bits, in rows of 768 numbers."""
    array = tensor if isinstance(tensor, numpy.ndarray) else tensor.view(torch.int16).numpy()
    words: Words = array.reshape(-1).view(numpy.uint64).reshape(-1, _WIDTH * 2 // 8)
    return words
