"""The same weights by this engine and by Ray's object store, in turn, each with a version of its own."""

import statistics
import time
from typing import Any, Callable

from cluster import answer
from messages import Pulled

HEADER = "ms                    at all    best  trainer's node  other node"


class Race:
    """Samples of one set of rollouts. All times are of the slowest rollout of those that are meant."""

    def __init__(self, trainer: Any, rollouts: "list[Any]", near: "list[bool]") -> None:
        self._trainer, self._rollouts, self._near = trainer, rollouts, near
        self._samples: "dict[str, list[tuple[float, ...]]]" = {}
        self.wrong = 0

    def round(self) -> None:
        """Each way once."""
        self._one(lambda version: [rollout.pull.remote() for rollout in self._rollouts])
        self._one(lambda version: self._get(version, False), "Ray, mapped")
        self._one(lambda version: self._get(version, True), "Ray, copied")

    def _get(self, version: int, copied: bool) -> "list[Any]":
        references = answer(self._trainer.put.remote())
        return [rollout.get.remote(references, version, copied) for rollout in self._rollouts]

    def _one(self, start: "Callable[[int], list[Any]]", name: str = "") -> None:
        version: int = answer(self._trainer.train.remote())
        began = time.monotonic()
        pulled: "list[Pulled]" = answer(start(version))
        seconds = time.monotonic() - began
        self.wrong += sum(answer([rollout.wrong.remote(version) for rollout in self._rollouts]))
        near, far = (
            max((one.seconds for one, is_near in zip(pulled, self._near, strict=True) if is_near == wanted), default=0.0)
            for wanted in (True, False)
        )
        paths = "/".join(sorted({one.path for one in pulled}))
        self._samples.setdefault(name or f"ours, {paths}", []).append((seconds, near, far))

    def lines(self) -> "list[str]":
        """One of each way: medians, and the best until all had it."""
        found = []
        for name, samples in self._samples.items():
            total, near, far = (statistics.median(column) * 1e3 for column in zip(*samples, strict=True))
            best = min(sample[0] for sample in samples) * 1e3
            found.append(f"{name:<20} {total:>7.0f} {best:>7.0f} {near:>15.0f} {far:>11.0f}")
        return found
