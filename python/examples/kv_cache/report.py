"""The results as tables."""

from typing import Any

from model import LLAMA_3_8B as MODEL
from pair import Run


def show(results: "list[tuple[Run, dict[str, Any]]]") -> None:
    """A line for each run, and how those on one path compare."""
    print(
        f"{MODEL.name}: {MODEL.layers} layers, blocks of {MODEL.block_tokens} tokens in pieces of {MODEL.piece_bytes >> 10} KiB; "
        f"{results[0][1]['memory']}"
    )
    print(f"{'path':13} {'library':8} {'GiB':>6} {'seconds':>8} {'GiB/s':>6} {'computing':>10} {'first token':>16} {'with 64':>9}")
    for what, result in results:
        gib = result["bytes"] / 2**30
        print(
            f"{what.path:13} {what.transport:8} {gib:6.2f} {result['seconds']:7.2f}s {gib / result['seconds']:6.2f} "
            f"{result['prefill']['compute_seconds']:9.2f}s "
            f"{result['first_token_ms']:8.2f} {result['first_token_best_ms']:5.2f}ms {result['under_load_ms']:7.0f}ms"
        )
    print(
        "computing: of the seconds, those that the prefill process filled caches; first token: until all bytes of one computed "
        "prompt of 64 tokens (8 MiB) are there, median and best; with 64: the same for 64 prompts at once, with their computing"
    )
    for path in dict.fromkeys(what.path for what, _ in results):
        of_path = {what.transport: result for what, result in results if what.path == path}
        if len(of_path) == 2:
            ours, nixl = of_path["ours"], of_path["nixl"]
            print(
                f"{path}: over NIXL the first token's bytes took {nixl['first_token_ms'] / ours['first_token_ms']:.2f} times as long "
                f"as over ours (median), {nixl['first_token_best_ms'] / ours['first_token_best_ms']:.2f} times (best)"
            )


def show_restart(result: "dict[str, Any]") -> None:
    """What the second prefill process sent."""
    sent, before = result["prefill"], result["layers_before_restart"]
    print(
        f"prefill killed (SIGKILL) when {before} of {result['layers']} layers of 64 sequences had been delivered, and started again: "
        f"it sent the other {sent['layers_sent']}, {sent['bytes_sent'] / 2**20:.1f} MiB of {result['bytes'] / 2**20:.1f} MiB"
    )
