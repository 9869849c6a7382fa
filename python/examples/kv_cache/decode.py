"""The decode process: asks for the cache of prompts, learns of each layer that has come, and checks all bytes.

decode.py TRANSPORT PATH BLOCKS MIB

It has the block tables of its cache and knows which layers it has: a prefill process that ends is followed by another one, which
is asked for what is missing. Lines of its output are JSON: its port, "half" in the middle of the first batch, how long the batches
took; for each line of its input the time to the first token; its results at the end of the input.
"""

import json
import os
import random
import statistics
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import lifetime
import protocol
from allocator import Allocator
from cache import KIND, as_cache, as_words
from content import Content
from model import LLAMA_3_8B as MODEL
from protocol import Report, Request
from transport import Transport, open_transport

IN_FLIGHT = 64
#: Blocks of a sequence: 16 to 80 tokens.
BLOCKS_OF_SEQUENCE = (1, 5)
#: The prompt of the measurement of the first token, which no batch has, and its blocks: 64 tokens.
AGAIN, BLOCKS_OF_AGAIN = 1 << 20, 4
# Without a message for so long something is wrong, and the example fails.
SILENCE_SECONDS = 20.0


class Decode:
    """The cache of this process, and what is missing in it."""

    def __init__(self, transport: Transport, blocks: int) -> None:
        self._transport = transport
        cache = as_cache(transport.make_cache(MODEL.block_bytes * blocks, MODEL.piece_bytes), MODEL, blocks)
        self._content = Content(MODEL, as_words(cache, MODEL, blocks))
        self._offer = dict(transport.offer(), blocks=blocks)
        self._allocator = Allocator(blocks, seed=1)
        self._listener = protocol.listen()
        self._control: "Connection | None" = None
        self._requests = 0
        #: Of each request that is not complete, the layers to come.
        self._missing: "dict[int, set[int]]" = {}
        #: When a request was complete.
        self._complete: "dict[int, float]" = {}
        self.layers, self.twice, self.wrong_pieces, self.restarts, self.layers_before_restart = 0, 0, 0, 0, 0
        self.bytes = 0
        say({"port": self._listener.address[1]})

    def fetch(self, prompts: "dict[int, int]") -> "list[float]":
        """Gets the caches of prompts (their numbers of blocks) all at once, and answers when each was complete, in seconds.

        The check of the bytes comes after.
        """
        batch = []
        for prompt, blocks in prompts.items():
            self._requests += 1
            table = self._allocator.allocate(self._requests, blocks)
            batch.append(Request(self._requests, prompt, table, list(range(MODEL.layers))))
            self._missing[self._requests] = set(range(MODEL.layers))
        control = self._connected()
        began = time.perf_counter()
        control.send(batch)
        self._await(batch)
        for request in batch:
            self.wrong_pieces += self._content.wrong_pieces(request.prompt, MODEL.layers, request.table)
            self.bytes += MODEL.block_bytes * len(request.table)
            # The answer has been decoded, so to speak: other sequences may have the blocks.
            self._allocator.release(request.number)
        return [self._complete.pop(request.number) - began for request in batch]

    def _connected(self) -> Connection:
        """A prefill process; waits for one that connects."""
        if self._control is None:
            with lifetime.limit(SILENCE_SECONDS, "the wait for a prefill process"):
                self._control = self._listener.accept()
            self._control.send(self._offer)
        return self._control

    def _await(self, batch: "list[Request]") -> None:
        """Until nothing is missing, whichever process sends it."""
        heard = looked = time.perf_counter()
        half = len(batch) * MODEL.layers // 2
        while self._missing:
            found = self._transport.messages(0.01)
            now = time.perf_counter()
            for content in found:
                self._arrived(*protocol.parse_message(content), now)
            if self.layers < half <= self.layers + len(found):
                say({"half": True})
            self.layers += len(found)
            if found:
                heard = now
            elif now - heard > SILENCE_SECONDS:
                raise TimeoutError(f"nothing has come for {SILENCE_SECONDS} s, {len(self._missing)} sequences are incomplete")
            if now - looked > 0.01:
                looked = now
                restarts = self.restarts
                self._look_after_prefill(batch)
                if self.restarts != restarts:
                    # The wait for the next process was no silence: it has a limit of its own.
                    heard = time.perf_counter()

    def _arrived(self, request: int, layer: int, now: float) -> None:
        missing = self._missing.get(request, set())
        self.twice += layer not in missing
        missing.discard(layer)
        if not missing and self._missing.pop(request, None) is not None:
            self._complete[request] = now

    def _look_after_prefill(self, batch: "list[Request]") -> None:
        """If the prefill process has ended, asks the next one for what is missing, and for nothing else."""
        control = self._connected()
        try:
            # It sends nothing before it is asked for its report: what can be read is its end.
            if not control.poll(0):
                return
            control.recv()
        except (EOFError, OSError):
            control.close()
        self._control = None
        self.restarts += 1
        # What it had sent before it was killed is in this host's sockets at most.
        time.sleep(0.2)
        now = time.perf_counter()
        for content in self._transport.messages(0.0):
            self.layers += 1
            self._arrived(*protocol.parse_message(content), now)
        self.layers_before_restart = self.layers
        self._connected().send(
            [
                request._replace(layers=sorted(self._missing[request.number]))
                for request in batch
                if request.number in self._missing
            ]
        )

    def end(self) -> Report:
        """The report of the prefill process, which ends."""
        control = self._connected()
        control.send(None)
        if not control.poll(SILENCE_SECONDS):
            raise TimeoutError(f"the prefill process has not reported for {SILENCE_SECONDS} s")
        report: Report = control.recv()
        return report


def say(line: "dict[str, Any]") -> None:
    print(json.dumps(line), file=_ANSWERS, flush=True)


# What libraries print to the output goes where their other messages go, and not between the answers.
_ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def main() -> None:
    lifetime.end_with_parent()
    name, path, blocks, mib = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    transport = open_transport(name, path)
    decode = Decode(transport, blocks)
    choose = random.Random(3)
    seconds, under_load, batches = 0.0, [], 0
    while decode.bytes < mib << 20:
        prompts = range(batches * IN_FLIGHT, (batches + 1) * IN_FLIGHT)
        complete = decode.fetch({prompt: choose.randint(*BLOCKS_OF_SEQUENCE) for prompt in prompts})
        batches += 1
        seconds += max(complete)
        under_load += complete
    say({"bytes": decode.bytes, "seconds": seconds, "under_load_ms": statistics.median(under_load) * 1e3})
    for _ in sys.stdin:
        # One prompt again and again, alone. The prefill side has it after the first time, so what is measured are its bytes.
        say({"first_token_ms": decode.fetch({AGAIN: BLOCKS_OF_AGAIN})[0] * 1e3})
    report = decode.end()
    say(
        {
            "memory": KIND,
            "wrong_pieces": decode.wrong_pieces,
            "twice": decode.twice,
            "layers": decode.layers,
            "layers_before_restart": decode.layers_before_restart,
            "restarts": decode.restarts,
            "prefill": report._asdict(),
        }
    )
    transport.close()


if __name__ == "__main__":
    main()
