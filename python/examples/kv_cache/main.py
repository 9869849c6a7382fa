#!/usr/bin/env python3
"""Moves the key-value caches of prompts from a prefill process to a decode process, and prints how long that took.

    python3 python/examples/kv_cache/main.py

The sizes are those of Llama-3-8B. 64 sequences are in flight; their blocks lie anywhere in the caches of both sides, which are
smaller than what is moved, so that blocks are used again. A layer of a sequence is sent as soon as it is computed, and a message
follows it. All bytes are compared. Then the prefill process is killed and another one continues. The same program runs over NIXL
where that is installed.
"""

import argparse
import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import report
from pair import Failed, Pair, Run

# What is measured beside the first run, on the other paths and over NIXL: one batch.
ONE_BATCH_MIB = 1


def main() -> int:
    options = _options()
    nixl = options.nixl_python or _nixl_python()
    reason = _without_nixl(nixl)
    if reason:
        print(reason)
    results: "list[tuple[Run, dict[str, Any]]]" = []
    try:
        for path in options.paths.split(","):
            # The first run is the one that moves much.
            runs = [Run("ours", path, mib=ONE_BATCH_MIB if results else int(options.gib * 1024))]
            if not reason and path in NIXL_PATHS:
                runs.append(Run("nixl", path, python=nixl, mib=ONE_BATCH_MIB))
            results += _measure(runs, options.samples)
        with Pair(Run("ours", results[0][0].path, layer_ms=0.5, kills_prefill=True)) as pair:
            restarted = pair.finish()
    except Failed as error:
        print(f"main.py: {error}", file=sys.stderr)
        return 1
    report.show(results)
    report.show_restart(restarted)
    return _verdict([*(result for _, result in results), restarted])


def _measure(runs: "list[Run]", samples: int) -> "list[tuple[Run, dict[str, Any]]]":
    """Both libraries on one path. The samples are taken in turn, so that what else the machine does affects both."""
    with contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(Pair(what)) for what in runs]
        for _ in range(samples + 1):
            for pair in pairs:
                pair.sample()
        return [(pair.what, pair.finish()) for pair in pairs]


#: Of the paths of this engine, those that UCX has too.
NIXL_PATHS = ("cross-memory", "tcp")
#: As in `./x bench peers`.
NIXL_PYTHON = Path(__file__).resolve().parents[3] / "target" / "peers" / "nixl" / "bin" / "python"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gib", type=float, default=4, help="how much to move on the first path, at least (4)")
    parser.add_argument("--paths", default="shared,cross-memory,tcp", help="of FLAGCX_P2P_PATH (shared,cross-memory,tcp)")
    parser.add_argument("--samples", type=int, default=20, help="prompts for the time to the first token (20)")
    parser.add_argument("--nixl-python", help="the Python that NIXL is installed for (this one)")
    return parser.parse_args()


def _nixl_python() -> str:
    """The one for which `./x bench peers` installs NIXL, if it has; else this one."""
    return str(NIXL_PYTHON) if NIXL_PYTHON.exists() else sys.executable


def _without_nixl(python: str) -> str:
    """Why NIXL is not compared with; empty if it is."""
    command = [python, "-c", "import nixl._api, numpy"]
    try:
        found = subprocess.run(command, capture_output=True, env=dict(os.environ, NIXL_LOG_LEVEL="ERROR")).returncode == 0
    except OSError:
        found = False
    return "" if found else (
        "not compared with NIXL, which is not installed. In the source tree this installs it: python3 -m venv target/peers/nixl && "
        "target/peers/nixl/bin/pip install --no-deps nixl==1.5.1 nixl-cu12==1.5.1 numpy"
    )


def _verdict(results: "list[dict[str, Any]]") -> int:
    """0 if every byte was right and no layer came twice."""
    wrong = sum(result["wrong_pieces"] for result in results)
    twice = sum(result["twice"] for result in results)
    total = sum(result["bytes"] for result in results)
    print(f"{total / 2**30:.2f} GiB moved and compared: {wrong} wrong pieces, {twice} layers delivered twice")
    restarted = results[-1]
    resent = restarted["layers_before_restart"] + restarted["prefill"]["layers_sent"] - restarted["layers"]
    return int(wrong > 0 or twice > 0 or resent != 0 or restarted["restarts"] != 1)


if __name__ == "__main__":
    sys.exit(main())
