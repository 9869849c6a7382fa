#!/usr/bin/env python3
"""A trainer's weights at rollouts on two nodes of Ray, beside Ray's object store.

    pip install ray numpy ./python
    python3 python/examples/ray_weights/main.py

Descriptors of the tensors travel through Ray, once; the bytes do not. One rollout is killed while it reads, is started again by Ray,
and catches up. Every rollout compares every byte of each version that it has.
"""

import argparse
import sys
import time
from typing import Any

import ray

from cluster import actor, answer, cluster
from messages import Model, Pulled
from parts import KIND, new_state, rows_of
from race import HEADER, Race
from rollout import Rollout
from trainer import Trainer


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--address", help="of a Ray cluster that runs, or auto (default: two nodes of this machine)")
    parser.add_argument("--rollouts", type=int, default=4, help="in turn on all nodes, at least 2 (4)")
    parser.add_argument("--rounds", type=int, default=5, help="of the comparison (5)")
    parser.add_argument("--paths", nargs="+", default=["auto", "tcp"], help="of this engine, one after the other (auto tcp)")
    parser.add_argument("--layers", type=int, default=Model().layers, help="of the model (12)")
    parser.add_argument("--vocabulary", type=int, default=Model().vocabulary, help="of the model (50257)")
    options = parser.parse_args()
    model = Model(options.layers, options.vocabulary)
    sizes = [rows_of(tensor).nbytes for tensor in new_state(*model).values()]
    # An object of the store, and the one before it, which is released a little later.
    with cluster(options.address, max(3 * sum(sizes), 100 << 20)) as nodes:
        print(
            f"{len(sizes)} tensors, {sum(sizes) / 2**20:.0f} MiB, {KIND}; "
            f"{options.rollouts} rollouts on {len(nodes)} nodes of Ray {ray.__version__}"
        )
        trainer = actor(Trainer, nodes[0], model)
        wrong = 0
        for path in options.paths:
            rollouts = Rollouts(trainer, nodes, options.rollouts, model, path)
            if path == options.paths[0]:
                wrong += follow(trainer, rollouts)
                print(HEADER)
            race = Race(trainer, rollouts.all, rollouts.near)
            for _ in range(options.rounds):
                race.round()
            print("\n".join(race.lines()), flush=True)
            wrong += race.wrong
            rollouts.end()
        print(f"every byte compared: {wrong} wrong tensors")
        return int(wrong > 0)


#: How long Ray may take to kill a rollout.
KILL_LIMIT_SECONDS = 30.0

# Ray starts a rollout again that has died, and repeats its call. The second thread answers `is_reading`.
_OPTIONS = {"max_restarts": -1, "max_task_retries": -1, "max_concurrency": 2}


class Rollouts:
    """Some, in turn on all nodes."""

    def __init__(self, trainer: Any, nodes: "list[str]", count: int, model: Model, path: str) -> None:
        catalogue = answer(trainer.catalogue.remote())
        self.near = [number % len(nodes) == 0 for number in range(count)]
        self.all = [
            actor(Rollout, nodes[number % len(nodes)], catalogue, model, path, **_OPTIONS) for number in range(count)
        ]
        answer([rollout.is_reading.remote() for rollout in self.all])  # all have started

    def pull(self) -> "list[Pulled]":
        pulled: "list[Pulled]" = answer([rollout.pull.remote() for rollout in self.all])
        return pulled

    def wrong(self, pulled: "list[Pulled]") -> int:
        """Tensors that differ from what was pulled, of all."""
        calls = [rollout.wrong.remote(one.version) for rollout, one in zip(self.all, pulled, strict=True)]
        return sum(answer(calls))

    def end(self) -> None:
        for rollout in self.all:
            ray.kill(rollout)


def follow(trainer: Any, rollouts: Rollouts) -> int:
    """Versions, and a rollout that is killed meanwhile. Answers how many tensors were wrong."""
    answer(trainer.train.remote())
    pulled = rollouts.pull()
    wrong: int = rollouts.wrong(pulled)
    print(f"version {pulled[0].version}: at all {len(pulled)} rollouts, path {pulled[0].path}")

    victim, before = rollouts.all[-1], pulled[-1].process
    version = answer(trainer.train.remote())
    call = victim.pull.remote()
    while not (answer(victim.is_reading.remote()) or ray.wait([call], timeout=0)[0]):
        pass
    ray.kill(victim, no_restart=False)
    newest: int = answer(trainer.train.remote())
    others = answer([rollout.pull.remote() for rollout in rollouts.all[:-1]])
    print(f"version {version}: a rollout was killed while it read; the other {len(others)} have version {newest}")

    caught_up = answer(call)
    # The call had ended just before, or began again at once; Ray kills later than it is told to.
    deadline = time.monotonic() + KILL_LIMIT_SECONDS
    while (caught_up.process == before or caught_up.version < newest) and time.monotonic() < deadline:
        caught_up = answer(victim.pull.remote())
    pulled = [*others, caught_up]
    wrong += rollouts.wrong(pulled)
    print(
        f"version {caught_up.version}: the rollout that was killed has it, "
        f"in another process ({before}, then {caught_up.process})"
    )
    return wrong + int(caught_up.process == before) + sum(one.version != newest for one in pulled)


if __name__ == "__main__":
    sys.exit(main())
