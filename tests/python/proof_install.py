"""The README's two commands: a clean virtual environment, `pip install ./python`, and an array is moved.

A proof, because the extension is compiled as users compile it, which takes minutes. It needs PyPI, for maturin.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).parent.parent.parent


class Install(unittest.TestCase):
    def test_a_clean_environment_gets_all_of_it(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        folder = pathlib.Path(temporary.name)
        before = self.untracked()
        run(folder, sys.executable, "-m", "venv", "env")
        environment = folder / "env" / "bin"
        run(folder, environment / "pip", "install", "--quiet", ROOT / "python")
        self.assertEqual(before, self.untracked(), "the build leaves nothing in the source tree")

        program = "import flagcx_p2p, pathlib; print(pathlib.Path(flagcx_p2p.__file__).parent, flagcx_p2p.version())"
        place, version = run(folder, environment / "python", "-c", program).split()
        self.assertTrue(place.startswith(str(folder / "env")), place)
        self.assertTrue((pathlib.Path(place) / "py.typed").exists(), "type checkers look for it")
        self.assertIn(f"Version: {version}", run(folder, environment / "pip", "show", "flagcx-p2p"))
        moved = run(folder, environment / "python", ROOT / "python" / "examples" / "move_array.py")
        self.assertIn("moved there and back", moved)
        # The tool is inside, and starts itself once more for its second process.
        self.assertIn(version, run(folder, environment / "flagcx-p2p", "--version"))
        shown = run(folder, environment / "flagcx-p2p", "bench", "local", "--sizes", "64K", "--duration", "1")
        self.assertIn("64", shown)

        licences = next(pathlib.Path(place).parent.glob("flagcx_p2p-*.dist-info/licenses"))
        self.assertIn("Apache License", (licences / "LICENSE").read_text())
        others = (licences / "THIRD-PARTY-LICENSES.txt").read_text()
        for crate in ("pyo3", "clap", "crossbeam"):
            self.assertRegex(others, rf"(?m)^{crate} \d")

    def test_what_is_missing_is_named_at_once(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        backend = ROOT / "python" / "build_backend"
        program = f"import sys; sys.path.insert(0, {str(backend)!r}); import prerequisites; prerequisites.check(None)"
        # Neither cargo nor a compiler is on this path.
        ended = subprocess.run(
            [sys.executable, "-c", program], env={"PATH": temporary.name}, capture_output=True, text=True, timeout=60
        )
        self.assertEqual(ended.returncode, 1)
        for needed in ("a C compiler", "https://rustup.rs", "libibverbs-dev", "--no-default-features"):
            self.assertIn(needed, ended.stderr)

    def untracked(self) -> str:
        """What lies in the package's folder and is not tracked, ignored files too."""
        return run(ROOT, "git", "status", "--porcelain", "--ignored", "--", "python")


def run(folder: pathlib.Path, *command: "str | pathlib.Path") -> str:
    """Runs a command in `folder`, not told where this tree's package is; answers what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
    return ended.stdout


if __name__ == "__main__":
    unittest.main()
