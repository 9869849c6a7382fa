"""NIXL's Python agent over its FLAGCX plugin and this library: what is there of the two, and if all of it is, bytes are moved.

`nixl` comes from PyPI, into target/peers. No release of it contains the plugin, which FlagCX publishes as a patch: docs/nixl.md. For one that
was built, NIXL_PLUGIN_DIR names its folder, and NIXL_PYTHON the Python for which that NIXL is installed. FLAGCX_P2P_LIBRARY is this library.
"""

import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from lines import Lines  # tests/python, where run.py is

ROOT = pathlib.Path(__file__).parent.parent.parent
SIDE = pathlib.Path(__file__).parent / "side.py"
RELEASE = "1.1.0"
PACKAGES = [f"nixl=={RELEASE}", f"nixl-cu12=={RELEASE}", "numpy"]
PLUGIN = "libplugin_FLAGCX.so"
#: For a line of a process, which may import NIXL first.
PATIENCE_S = 60
#: For packages of 90 MB from PyPI.
INSTALLING_S = 300

#: What FlagCX's plugin for NIXL 1.1.0 calls, as its symbols are mangled.
CALLED = [
    "_Z21flagcxP2pEngineCreatev",
    "_Z22flagcxP2pEngineDestroyP15FlagcxP2pEngine",
    "_Z25flagcxP2pEngineStopAcceptP15FlagcxP2pEngine",
    "_Z22flagcxP2pEngineConnectP15FlagcxP2pEnginePKciib",
    "_Z21flagcxP2pEngineAcceptP15FlagcxP2pEnginePcmPi",
    "_Z28flagcxP2pEngineStartListenerP13FlagcxP2pConn",
    "_Z26flagcxP2pEngineConnDestroyP13FlagcxP2pConn",
    "_Z18flagcxP2pEngineRegP15FlagcxP2pEnginemmRm",
    "_Z24flagcxP2pEngineMrDestroyP15FlagcxP2pEnginem",
    "_Z26flagcxP2pEnginePrepareDescP15FlagcxP2pEnginemPKvmPc",
    "_Z25flagcxP2pEngineUpdateDescR17FlagcxP2pRdmaDescmj",
    "_Z25flagcxP2pEngineReadVectorP13FlagcxP2pConnSt6vectorImSaImEES1_IPvSaIS4_EES3_S1_I17FlagcxP2pRdmaDescSaIS7_EEiPmS1_IPcSaISB_EE",
    "_Z26flagcxP2pEngineWriteVectorP13FlagcxP2pConnRKSt6vectorImSaImEERKS1_IPvSaIS6_EES5_RKS1_I17FlagcxP2pRdmaDescSaISB_EEiPmRKS1_IPcSaISH_EE",
    "_Z25flagcxP2pEngineXferStatusP13FlagcxP2pConnm",
    "_Z26flagcxP2pEngineGetMetadataP15FlagcxP2pEnginePPc",
    "_Z24flagcxP2pEngineGetNotifsv",
    "_Z24flagcxP2pEngineSendNotifP13FlagcxP2pConnP18FlagcxP2pNotifyMsg",
]


class Nixl(unittest.TestCase):
    python: str
    environment: "dict[str, str]"

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        there = pathlib.Path(folder.name)
        # The name under which the plugin was linked with FlagCX's library.
        (there / "libflagcx.so").symlink_to(os.environ["FLAGCX_P2P_LIBRARY"])
        # NIXL 1.1.0 imports torch for its tensors, which nothing here uses; torch itself has a gigabyte.
        (there / "torch").mkdir()
        (there / "torch" / "__init__.py").write_text("class Tensor:\n    pass\n")
        cls.python = os.environ.get("NIXL_PYTHON") or install()
        paths = {"LD_LIBRARY_PATH": str(there), "PYTHONPATH": "" if importable(cls.python, "torch") else str(there)}
        # What docs/nixl.md says to set: the plugin asks with a notification how a transfer ended.
        own = {"FLAGCX_P2P_FAILED_HOLD_MS": "0", "FLAGCX_P2P_FABRIC": "software", "FLAGCX_P2P_BIND": "127.0.0.1"}
        cls.environment = {**os.environ, **paths, **own, "UCX_TLS": "tcp,cma", "NIXL_LOG_LEVEL": "ERROR"}

    def test_the_library_has_what_the_plugin_calls(self) -> None:
        library = ctypes.CDLL(os.environ["FLAGCX_P2P_LIBRARY"])
        self.assertEqual([name for name in CALLED if not hasattr(library, name)], [])

    def test_the_program_moves_bytes_over_a_plugin_of_the_package(self) -> None:
        # So that a failure over FLAGCX is one of FLAGCX.
        environment = {name: value for name, value in self.environment.items() if name != "NIXL_PLUGIN_DIR"}
        self.assert_moves("UCX", environment)

    def test_bytes_move_over_the_flagcx_plugin(self) -> None:
        found = self.run_side(self.environment, "FLAGCX", "lone")
        print(f"\n{found.strip()}", flush=True)
        if "agent: made" not in found:
            self.skipTest(f"NIXL cannot make an agent with the backend FLAGCX: {self.what_is_missing(found)}")
        self.assert_moves("FLAGCX", self.environment)

    def what_is_missing(self, found: str) -> str:
        folder = os.environ.get("NIXL_PLUGIN_DIR")
        if not folder:
            listed = next(line for line in found.splitlines() if line.startswith("plugins:"))
            return (
                f"nixl {RELEASE} of PyPI does not contain {PLUGIN} ({listed}). It is built from FlagCX's patch for NIXL {RELEASE}: "
                "see docs/nixl.md, then set NIXL_PLUGIN_DIR to its folder and NIXL_PYTHON to the Python that has that NIXL"
            )
        plugin = pathlib.Path(folder) / PLUGIN
        if not plugin.is_file():
            return f"NIXL_PLUGIN_DIR is {folder}, which does not contain {PLUGIN}"
        # NIXL says only "unsupported backend"; the loader knows the library or the symbol.
        program = f"import ctypes; ctypes.CDLL({str(plugin)!r}, mode=2)"
        loaded = subprocess.run(
            [self.python, "-c", program], env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S
        )
        reason = loaded.stderr.strip().splitlines()[-1:] or ["it can be loaded by itself, but NIXL refuses it: another version?"]
        return f"{plugin}: {reason[0]}"

    def assert_moves(self, backend: str, environment: "dict[str, str]") -> None:
        """Bytes there and back, a notification after each; then, of our backend, what a killed peer is reported as."""
        target = subprocess.Popen(
            [self.python, SIDE, backend, "target"], env=environment, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.addCleanup(end, target)
        said_there = Lines(target, f"the target over {backend}")
        line = said_there.next(PATIENCE_S, "where its memory is")
        initiator = subprocess.Popen(
            [self.python, SIDE, backend, "initiator", line],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )
        self.addCleanup(end, initiator)
        said_here = Lines(initiator, f"the initiator over {backend}")
        for expected in ("write: DONE", "read: DONE", "bytes: equal"):
            self.assertEqual(said_here.next(PATIENCE_S, repr(expected)), expected)
        for expected in ("notified written", "notified read"):
            self.assertEqual(said_there.next(PATIENCE_S, repr(expected)), expected)

        if backend != "FLAGCX":
            return
        target.kill()
        target.wait()
        assert initiator.stdin
        initiator.stdin.write("\n")
        initiator.stdin.flush()
        last = said_here.next(PATIENCE_S, "how a transfer to a killed peer ends")
        print(f"{backend}: {last}", flush=True)
        self.assertTrue(last.startswith("to a killed peer: "), last)
        self.assertNotIn("DONE", last)
        self.assertEqual(initiator.wait(PATIENCE_S), 0)

    def run_side(self, environment: "dict[str, str]", *arguments: str) -> str:
        command = [self.python, str(SIDE), *arguments]
        try:
            ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            self.fail(f"{' '.join(command)} has not ended within {PATIENCE_S} s; it has printed: {error.stdout!r}")
        self.assertEqual(ended.returncode, 0, ended.stdout)
        return ended.stdout


def install() -> str:
    """The Python of a virtual environment under target/peers that has NIXL; made once."""
    folder = ROOT / "target" / "peers" / f"nixl-{RELEASE}"
    python = folder / "bin" / "python"
    if (folder / "installed").is_file():
        return str(python)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True, timeout=PATIENCE_S)
    # Without what they depend on: torch, and UCX is inside.
    command = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", *PACKAGES]
    cannot = f"{' '.join(PACKAGES)} cannot be installed"
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=INSTALLING_S)
    except subprocess.TimeoutExpired:
        raise unittest.SkipTest(f"{cannot}: PyPI has not sent them within {INSTALLING_S} s") from None
    if ended.returncode != 0:
        raise unittest.SkipTest(f"{cannot}: {(ended.stderr.strip() or 'pip does not say why').splitlines()[-1]}")
    (folder / "installed").write_text(" ".join(PACKAGES))
    return str(python)


def importable(python: str, module: str) -> bool:
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True, timeout=PATIENCE_S).returncode == 0


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    if process.stdin:
        process.stdin.close()


if __name__ == "__main__":
    unittest.main()
