"""What one `initialize` has opened."""

from dataclasses import dataclass, field

from .._native import Connection, Engine
from ._batches import Batches
from ._directory import Peers
from ._memory import Memory


@dataclass(frozen=True)
class Opened:
    """An engine with its memory and its transfers. A call takes it once: another one may close it meanwhile, or open the next."""

    engine: Engine
    peers: "Peers | None"  # None: they are named by their addresses
    memory: Memory = field(default_factory=Memory)
    batches: Batches = field(default_factory=Batches)

    def connect(self, peer: str) -> Connection:
        return self.engine.connect(peer) if self.peers is None else self.peers.connect(self.engine, peer)
