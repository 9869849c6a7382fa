"""Mooncake's own package beside ours, in one run: results, traces, times; and checkpoint-engine over both.

A proof, because it installs packages from PyPI: Mooncake (50 MB), and checkpoint-engine without torch, which would be 3 GB. They are kept in
target/peers. Mooncake needs libcurl, libibverbs and libnuma, which `./x proofs` installs. CHECKPOINT_ENGINE_PYTHON names a Python with all of
checkpoint-engine, torch and Mooncake: its whole package is imported then.
"""

import json
import os
import pathlib
import subprocess
import sys
import unittest
from typing import Any

import mooncake_replay
from test_mooncake import HERE, RECORDED, run_script

ROOT = HERE.parent.parent
PEERS = ROOT / "target" / "peers"
MOONCAKE = "mooncake-transfer-engine-non-cuda==0.3.13.post1"
CHECKPOINT_ENGINE = "checkpoint-engine==0.4.2"
#: What its store imports.
LOGURU = "loguru==0.7.3"
OURS, THEIRS = "flagcx_p2p.mooncake", "mooncake.engine"


def environment(name: str, seconds: int, *packages: str) -> pathlib.Path:
    """A virtual environment with these packages, and its Python. Raises SkipTest where they cannot be installed."""
    folder, wanted = PEERS / name, " ".join(packages)
    done = folder / "installed"
    if not done.exists() or done.read_text() != wanted:
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, timeout=120)
            quiet = ["install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
            for package in packages:
                # Mooncake's other dependencies are for its store; checkpoint-engine's are torch, and for its other parts.
                command = [folder / "bin" / "pip", *quiet, "--no-deps", package]
                subprocess.run(command, check=True, timeout=seconds, stderr=subprocess.PIPE, text=True)
        except subprocess.CalledProcessError as error:
            reason = (error.stderr or "").strip().splitlines()[-1:] or [str(error)]
            raise unittest.SkipTest(f"{wanted} cannot be installed: {reason[0]}") from None
        except (subprocess.TimeoutExpired, OSError) as error:
            raise unittest.SkipTest(f"{wanted} cannot be installed: {error}") from None
        done.write_text(wanted)
    return folder / "bin" / "python"


def mooncake() -> str:
    python = environment("mooncake-alone", 300, MOONCAKE)
    seen = subprocess.run([python, "-c", "import mooncake.engine"], capture_output=True, text=True)
    if seen.returncode != 0:
        raise unittest.SkipTest(f"{MOONCAKE} cannot be loaded: {seen.stderr.splitlines()[-1]}")
    return str(python)


def package_of_users() -> "tuple[str, str]":
    """A folder with an optimised package, as `./x bench python` installs it, and what to call it; else that of this build."""
    for found in sorted((PEERS / "wheel").glob("lib/python3*/site-packages")):
        if (found / "flagcx_p2p" / "mooncake").is_dir():
            return str(found), "optimised"
    return os.environ["PYTHONPATH"], "this build; `./x bench python` makes an optimised one"


class BesideMooncake(unittest.TestCase):
    maxDiff = None

    def test_mooncake_answers_what_was_recorded(self) -> None:
        self.assertEqual(run_script(mooncake(), THEIRS), json.loads(RECORDED.read_text())["results"])

    def test_both_give_programs_the_answers_that_they_expect(self) -> None:
        python = mooncake()
        for trace in sorted(mooncake_replay.TRACES.glob("*.json")):
            for interpreter, module in (sys.executable, OURS), (python, THEIRS):
                with self.subTest(trace=trace.stem, module=module):
                    shown = run([interpreter, HERE / "mooncake_replay.py", module, trace])
                    print(shown, end="")
                    self.assertIn(" 0 of another result", shown)

    def test_the_times_of_both(self) -> None:
        folder, build = package_of_users()
        print(f"\nmedians; ours: {build}")
        ours = {"PYTHONPATH": folder, "FLAGCX_P2P_FABRIC": "software"}
        columns: "dict[str, dict[str, float]]" = {
            "Mooncake": times(mooncake(), THEIRS),
            "ours": times(sys.executable, OURS, **ours),
            "ours, tcp": times(sys.executable, OURS, **ours, FLAGCX_P2P_PATH="tcp"),
        }
        print(f"{'':58}" + "".join(f"{name:>12}" for name in columns))
        for call in columns["ours"]:
            print(f"{call:58}" + "".join(f"{column[call]:12.2f}" for column in columns.values()))


class CheckpointEngine(unittest.TestCase):
    def test_it_runs_with_one_changed_import(self) -> None:
        given = os.environ.get("CHECKPOINT_ENGINE_PYTHON")
        python = given or environment("checkpoint-engine-alone", 300, CHECKPOINT_ENGINE, LOGURU, MOONCAKE)
        for module in OURS, THEIRS:
            with self.subTest(module):
                shown = run([python, HERE / "checkpoint_engine_run.py", module])
                print(f"{module}: {shown}", end="")
                self.assertIn("all bytes compared", shown)


def times(python: str, module: str, **more: str) -> "dict[str, float]":
    found: "dict[str, float]" = json.loads(run([python, HERE / "mooncake_times.py", module], **more))
    return found


def run(command: "list[Any]", **more: str) -> str:
    # What pair.py sets for the suites is not what these set up themselves.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("FLAGCX_P2P_")}
    ended = subprocess.run(command, env={**plain, **more}, capture_output=True, text=True, timeout=600)
    if ended.returncode != 0:
        raise AssertionError(f"{command} ended as {ended.returncode}: {ended.stdout}{ended.stderr}")
    return ended.stdout


if __name__ == "__main__":
    unittest.main()
