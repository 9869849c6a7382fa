"""`pip install ./python`: the package works from a virtual environment, without the sources beside it."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCES = pathlib.Path(__file__).parent.parent.parent / "python"


class Install(unittest.TestCase):
    def test_pip_installs_it(self) -> None:
        # The back end comes from the system: a test downloads nothing.
        needed = [name for name in ("ensurepip", "setuptools", "wheel") if importlib.util.find_spec(name) is None]
        if needed:
            self.skipTest(f"{sys.executable} has no {', '.join(needed)}")
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        folder = pathlib.Path(temporary.name)
        # A copy, because the back end writes into the folder that it builds.
        shutil.copytree(SOURCES, folder / "python", ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
        self.run_here(folder, sys.executable, "-m", "venv", "--system-site-packages", "env")
        python = str(folder / "env" / "bin" / "python")
        self.run_here(folder, python, "-m", "pip", "install", "--no-index", "--no-build-isolation", "--quiet", "./python")
        shutil.rmtree(folder / "python")

        program = "import flagcx_p2p, pathlib; print(pathlib.Path(flagcx_p2p.__file__).parent, flagcx_p2p.version())"
        place, version = self.run_here(folder, python, "-c", program).split()
        self.assertTrue(place.startswith(str(folder / "env")), place)
        self.assertRegex(version, r"^\d+\.\d+\.\d+$")
        self.assertTrue((pathlib.Path(place) / "py.typed").exists(), "type checkers look for it")
        listed = self.run_here(folder, python, "-m", "pip", "show", "flagcx-p2p")
        self.assertIn(f"Version: {version}", listed)

    def run_here(self, folder: pathlib.Path, *command: str) -> str:
        """Runs a command in `folder`, not told where this tree's package is; answers what it prints."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
        self.assertEqual(run.returncode, 0, f"{command}: {run.stdout}{run.stderr}")
        return run.stdout


if __name__ == "__main__":
    unittest.main()
