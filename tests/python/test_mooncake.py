"""`flagcx_p2p.mooncake.TransferEngine`: what it answers beside what Mooncake's answered, and to the calls of programs."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
from typing import Any

import pair  # noqa: F401  the engine's environment

import mooncake_replay
from flagcx_p2p.mooncake import TransferEngine, TransferOpcode, engine as module

HERE = pathlib.Path(__file__).parent
RECORDED = HERE / "mooncake_recorded.json"
PAGE = HERE.parent.parent / "docs" / "mooncake.md"


def run_script(python: str, name: str) -> "dict[str, Any]":
    """The results of mooncake_script.py, in an environment that forces nothing."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("FLAGCX_P2P_", "MC_"))}
    command = [python, str(HERE / "mooncake_script.py"), name, "--json"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110)
    if ended.returncode != 0:
        raise AssertionError(f"{command} ended as {ended.returncode}: {ended.stdout}{ended.stderr}")
    found: "dict[str, Any]" = json.loads(ended.stdout)
    return found


def differences() -> "dict[str, list[Any]]":
    """Those that the page lists: call, Mooncake's result, ours, why."""
    table = PAGE.read_text(encoding="utf-8").split("## Other results\n")[1].split("\n## ")[0]
    rows = [re.fullmatch(r"\| (.+) \| `(.+)` \| `(.+)` \| (.*) \|", line) for line in table.splitlines() if line.startswith("| ")]
    return {row[1]: [json.loads(row[2]), json.loads(row[3])] for row in rows if row}


class BesideMooncake(unittest.TestCase):
    maxDiff = None

    def test_the_results_are_mooncakes_but_for_those_that_the_page_lists(self) -> None:
        theirs, ours = json.loads(RECORDED.read_text())["results"], run_script(sys.executable, "flagcx_p2p.mooncake")
        self.assertEqual(list(theirs), list(ours))
        found = {call: [theirs[call], ours[call]] for call in theirs if theirs[call] != ours[call]}
        if os.path.exists("/sys/class/infiniband") and os.listdir("/sys/class/infiniband"):
            found.setdefault("initialize: rdma without a NIC", [0, -1])  # there is one
        self.assertEqual(found, differences())

    def test_programs_get_the_answers_that_they_expect(self) -> None:
        traces = sorted(mooncake_replay.TRACES.glob("*.json"))
        self.assertEqual([trace.stem for trace in traces], ["checkpoint_engine", "sglang", "slime"])
        for trace in traces:
            with self.subTest(trace.stem):
                played = mooncake_replay.play("flagcx_p2p.mooncake", trace)
                self.assertEqual(played.wrong, [])
                self.assertGreater(played.calls, 40)

    def test_a_trace_with_another_answer_is_noticed(self) -> None:
        trace = json.loads((mooncake_replay.TRACES / "checkpoint_engine.json").read_text())
        steps = [step for step in trace["steps"] if step.get("call") != "batch_register_memory" or step["in"] != "owner"]
        with tempfile.NamedTemporaryFile("w", suffix=".json") as changed:
            json.dump({**trace, "steps": steps[:12]}, changed)
            changed.flush()
            self.assertGreater(len(mooncake_replay.play("flagcx_p2p.mooncake", pathlib.Path(changed.name)).wrong), 1)

    def test_the_module_has_mooncakes_names(self) -> None:
        self.assertIs(module.TransferEngine, TransferEngine)
        self.assertIs(TransferEngine.TransferOpcode, TransferOpcode)
        self.assertFalse(module.SUPPORT_CUDA)


if __name__ == "__main__":
    unittest.main()
