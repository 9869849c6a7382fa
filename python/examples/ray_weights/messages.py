"""What travels through Ray: descriptors, numbers and times. The bytes of tensors do not."""

from typing import NamedTuple


class Model(NamedTuple):
    """How many tensors there are, and their sizes: GPT-2's by default."""

    layers: int = 12
    vocabulary: int = 50257


class Descriptor(NamedTuple):
    """Where a tensor is in the trainer's memory."""

    address: int
    size: int


class Catalogue(NamedTuple):
    """All that a rollout needs to read every version of the weights."""

    #: "host:port" of the trainer's engine.
    session: str
    #: The address of the two numbers that say which version there is.
    board: int
    #: Versions are written to these in turn: version N to the one of index N modulo their number.
    states: "list[dict[str, Descriptor]]"


class Pulled(NamedTuple):
    """A version at a rollout."""

    version: int
    #: How long the rollout took, by its own clock.
    seconds: float
    #: The process, which is another one after a restart.
    process: int
    #: How the bytes travelled.
    path: str
