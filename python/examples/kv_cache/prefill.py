"""The prefill process: computes the cache of prompts layer by layer, and sends each layer as soon as it is there.

prefill.py TRANSPORT PATH BLOCKS PORT LAYER_MS
"""

import sys
import time
from collections import deque
from multiprocessing.connection import Connection

import numpy

import lifetime
import protocol
from allocator import Allocator
from cache import as_cache, as_words
from content import Content
from model import LLAMA_3_8B as MODEL
from protocol import Report, Request
from transport import Peer, Pieces, Sending, open_transport

# Transfers under way at most: enough to keep the other side busy.
WINDOW = 32


class Job:
    """A request in work."""

    def __init__(self, request: Request, table: "list[int]", cached: bool, blocks: int, blocks_there: int) -> None:
        self.request, self.table, self.cached = request, table, cached
        self.next_layer = 0
        self.sending = 0
        self._here, self._there = _first_pieces(table, blocks), _first_pieces(request.table, blocks_there)
        self._strides = 2 * blocks, 2 * blocks_there

    def pieces(self, layer: int) -> "tuple[Pieces, Pieces]":
        """The pieces of a layer, here and at decode."""
        return self._here + layer * self._strides[0], self._there + layer * self._strides[1]


def _first_pieces(table: "list[int]", blocks: int) -> Pieces:
    """The pieces of layer 0: the keys of all blocks, then the values."""
    first = numpy.array(table, dtype=numpy.int64)
    return numpy.concatenate([first, first + blocks])


class Prefill:
    """The cache of this process, and what it sends."""

    def __init__(self, peer: Peer, content: Content, blocks: int, blocks_there: int, layer_seconds: float) -> None:
        self._peer, self._content = peer, content
        self._blocks, self._blocks_there = blocks, blocks_there
        self._layer_seconds = layer_seconds
        self._allocator = Allocator(blocks, seed=2)
        self._jobs: "deque[Job]" = deque()
        self._sending: "deque[tuple[Sending, Job]]" = deque()
        self._compute_seconds, self._layers_sent, self._bytes_sent, self._hits = 0.0, 0, 0, 0

    def serve(self, control: Connection) -> None:
        """Does what decode asks, batch by batch, until it asks for the report."""
        while (batch := control.recv()) is not None:
            self._jobs.extend(self._begin(request) for request in batch)
            # In turn, as a server computes a batch of prompts: all of them are in flight until the last layers.
            while self._jobs or self._sending:
                if self._jobs and len(self._sending) < WINDOW:
                    self._step(self._jobs.popleft())
                else:
                    self._await_oldest()
        control.send(self._report())

    def _begin(self, request: Request) -> Job:
        table = self._allocator.take(request.prompt)
        cached = table is not None
        self._hits += cached
        if table is None:
            table = self._allocator.allocate(request.prompt, len(request.table))
        return Job(request, table, cached, self._blocks, self._blocks_there)

    def _step(self, job: Job) -> None:
        """Computes the next layer, and sends it unless decode has it. A layer needs those below, so all are computed."""
        layer = job.next_layer
        job.next_layer += 1
        if not job.cached:
            began = time.perf_counter()
            self._content.compute(job.request.prompt, layer, job.table)
            time.sleep(self._layer_seconds)
            self._compute_seconds += time.perf_counter() - began
        if layer in job.request.layers:
            here, there = job.pieces(layer)
            job.sending += 1
            self._sending.append((self._peer.send(here, there, protocol.message(job.request.number, layer)), job))
            self._layers_sent += 1
            self._bytes_sent += len(here) * MODEL.piece_bytes
        if job.next_layer < MODEL.layers:
            self._jobs.append(job)
        self._release(job)

    def _await_oldest(self) -> None:
        """Makes room for the next one. The others are under way meanwhile."""
        sending, job = self._sending.popleft()
        sending.wait()
        job.sending -= 1
        self._release(job)

    def _release(self, job: Job) -> None:
        """Its blocks may be evicted once they are sent, and not before."""
        if job.next_layer == MODEL.layers and job.sending == 0:
            self._allocator.release(job.request.prompt)

    def _report(self) -> Report:
        return Report(
            self._peer.path(), self._layers_sent, self._bytes_sent, self._compute_seconds, self._hits, self._allocator.evicted
        )


def main() -> None:
    lifetime.end_with_parent()
    name, path, blocks, port, layer_ms = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
    transport = open_transport(name, path)
    cache = as_cache(transport.make_cache(MODEL.block_bytes * blocks, MODEL.piece_bytes), MODEL, blocks)
    content = Content(MODEL, as_words(cache, MODEL, blocks))
    with protocol.connect(port) as control:
        offer = control.recv()
        peer = transport.connect(offer)
        Prefill(peer, content, blocks, offer["blocks"], layer_ms / 1e3).serve(control)
    transport.close()


if __name__ == "__main__":
    main()
