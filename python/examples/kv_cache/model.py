"""How large the key-value cache of a model is, and how it lies in memory."""

from typing import NamedTuple


class Model(NamedTuple):
    """What its configuration says."""

    name: str
    layers: int
    kv_heads: int
    head_dim: int
    #: Of one number of the cache.
    bytes_per_number: int
    #: Tokens of a block of the paged cache.
    block_tokens: int

    @property
    def piece_bytes(self) -> int:
        """The keys, or the values, of a block in one layer: what lies in one piece of memory."""
        return self.block_tokens * self.kv_heads * self.head_dim * self.bytes_per_number

    @property
    def block_bytes(self) -> int:
        """A block in all layers."""
        return self.layers * 2 * self.piece_bytes

    def shape(self, blocks: int) -> "tuple[int, ...]":
        """A cache of so many blocks, as vLLM lays it out: layer, keys or values, block, token, head, number."""
        return (self.layers, 2, blocks, self.block_tokens, self.kv_heads, self.head_dim)

    def piece(self, blocks: int, layer: int, half: int, block: int) -> int:
        """The number of a piece in a cache of so many blocks. ``half``: 0 for the keys, 1 for the values."""
        return (layer * 2 + half) * blocks + block


#: meta-llama/Meta-Llama-3-8B, config.json: num_hidden_layers, num_key_value_heads, hidden_size / num_attention_heads, bfloat16;
#: and the block of vLLM. A piece is 32 KiB, a block of 16 tokens 2 MiB.
LLAMA_3_8B = Model("Llama-3-8B", layers=32, kv_heads=8, head_dim=128, bytes_per_number=2, block_tokens=16)
