"""The README's two commands: a clean virtual environment, `pip install ./python`, and an array is moved.

A proof, because the extension is compiled as users compile it, which takes minutes. It needs PyPI, for maturin.
"""

import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

ROOT = pathlib.Path(__file__).parent.parent.parent


class Install(unittest.TestCase):
    def test_a_clean_environment_gets_all_of_it(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        folder = pathlib.Path(temporary.name)
        # A copy, because what the build leaves would not be seen among what others have built in this tree.
        tree = folder / "tree"
        copy_sources(tree)
        (folder / "tmp").mkdir()
        before = files(tree)
        run(folder, sys.executable, "-m", "venv", "env")
        environment = folder / "env" / "bin"
        run(folder, environment / "pip", "install", "--quiet", tree / "python")
        after = files(tree)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        self.assertEqual(changed[:10], [], "the build leaves nothing in the source tree")
        self.assertEqual(list((folder / "tmp").iterdir()), [], "nor among the temporary files")

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
        for needed in ("a C compiler", "https://rustup.rs", "libibverbs-dev", "apt install pkg-config", "--no-default-features"):
            self.assertIn(needed, ended.stderr)

    def test_a_target_folder_that_the_user_names_is_used(self) -> None:
        with unittest.mock.patch.object(sys, "path", [str(ROOT / "python" / "build_backend"), *sys.path]):
            target_folder = importlib.import_module("leave_nothing").target_folder
        with unittest.mock.patch.dict(os.environ, {"CARGO_TARGET_DIR": "/named"}), target_folder():
            self.assertEqual(os.environ["CARGO_TARGET_DIR"], "/named")
        with unittest.mock.patch.dict(os.environ):
            os.environ.pop("CARGO_TARGET_DIR", None)
            with target_folder():
                chosen = pathlib.Path(os.environ["CARGO_TARGET_DIR"])
                self.assertTrue(chosen.is_dir())
            self.assertFalse(chosen.exists())
            self.assertNotIn("CARGO_TARGET_DIR", os.environ)


def copy_sources(tree: pathlib.Path) -> None:
    """All files that are tracked, or would be, as they are now."""
    listed = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def files(tree: pathlib.Path) -> "dict[str, int]":
    """Everything below a folder, and when it was changed last."""
    return {str(path.relative_to(tree)): path.stat().st_mtime_ns for path in tree.rglob("*") if path.is_file()}


def run(folder: pathlib.Path, *command: "str | pathlib.Path") -> str:
    """Runs a command in `folder` as a user would, told nothing of this tree; answers what it prints."""
    ours = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    if (folder / "tmp").is_dir():
        environment["TMPDIR"] = str(folder / "tmp")
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
    return ended.stdout


if __name__ == "__main__":
    unittest.main()
