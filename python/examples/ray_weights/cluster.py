"""The Ray cluster: one that runs already, or two nodes of this machine that end with the example."""

import logging
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Iterator

# Before Ray is imported: nothing is reported to its makers for nodes that end with this program.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

# What Ray answers to is there within this time, or the example fails.
LIMIT_SECONDS = 60.0


@contextmanager
def cluster(address: "str | None", store_bytes: int) -> "Iterator[list[str]]":
    """Connects to the cluster at this address, or starts one; answers its nodes, this one first."""
    with ExitStack() as stack:
        if address is None:
            address = stack.enter_context(_two_nodes(store_bytes))
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        stack.callback(ray.shutdown)
        here = ray.get_runtime_context().get_node_id()
        others = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
        yield [here, *others]


@contextmanager
def _two_nodes(store_bytes: int) -> "Iterator[str]":
    """Each has a scheduler and an object store of its own, as on two machines."""
    from ray.cluster_utils import Cluster

    with _folder() as folder:
        # Another cluster of this machine, and what it keeps in /tmp/ray, is left alone.
        os.environ["RAY_TMPDIR"] = folder
        node = {"num_cpus": 2, "object_store_memory": store_bytes}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        try:
            cluster.add_node(**node)
            yield cluster.address
        finally:
            cluster.shutdown()


@contextmanager
def _folder() -> "Iterator[str]":
    """A folder for Ray's files and sockets, which guard.py removes; a socket's name has at most 107 characters, so it is short."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    command = [sys.executable, str(Path(__file__).with_name("guard.py")), folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield folder


def actor(kind: type, node: str, *arguments: Any, **options: Any) -> Any:
    """An actor on this node."""
    placed = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    return ray.remote(kind).options(num_cpus=0, scheduling_strategy=placed, **options).remote(*arguments)


def answer(reference: Any) -> Any:
    """What an actor's method answers, or a list of methods."""
    return ray.get(reference, timeout=LIMIT_SECONDS)
