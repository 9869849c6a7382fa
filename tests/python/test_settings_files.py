"""The configuration files: they hold for an engine with settings of its own too.

In a mount namespace in which the user's home directory, as the password database has it, is a folder of the test.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

# Says why no engine opens, with settings that are given as NAME=value.
_OPEN = """
import sys
from flagcx_p2p import Engine, P2pError
try:
    Engine(settings=dict(one.split("=", 1) for one in sys.argv[1:])).close()
    print("open")
except P2pError as error:
    print(error)
"""

_AS_ROOT = ["unshare", "--user", "--map-root-user", "--mount", "--"]


class Files(unittest.TestCase):
    def setUp(self) -> None:
        self.home = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.home / "passwd").write_text(f"root:x:0:0::{self.home}:/bin/sh\n")
        tried = self.run_with_home("true")
        if tried.returncode != 0:
            self.skipTest(f"not run: no mount namespace can be made here: {tried.stderr.strip()}")
        (self.home / ".flagcx.conf").write_text("FLAGCX_P2P_PATH=from-the-file\nFLAGCX_P2P_BIND=127.0.0.1\n")

    def run_with_home(self, *command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        mount = f"mount --bind '{self.home}/passwd' /etc/passwd && exec \"$@\""
        environment = {name: text for name, text in os.environ.items() if not name.startswith("FLAGCX_")}
        return subprocess.run(
            [*_AS_ROOT, "sh", "-c", mount, "sh", *command],
            env=environment | {"FLAGCX_P2P_FABRIC": "software"} | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def opened(self, *settings: str, **variables: str) -> str:
        done = self.run_with_home(sys.executable, "-c", _OPEN, *settings, **variables)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def test_settings_go_before_the_environment_and_that_before_the_files(self) -> None:
        other = "FLAGCX_P2P_QPS_PER_CONN=1"
        self.assertIn('FLAGCX_P2P_PATH="from-the-file"', self.opened())
        self.assertIn('FLAGCX_P2P_PATH="from-the-file"', self.opened(other))
        self.assertIn('FLAGCX_P2P_PATH="environment"', self.opened(other, FLAGCX_P2P_PATH="environment"))
        self.assertIn('FLAGCX_P2P_PATH="argument"', self.opened("FLAGCX_P2P_PATH=argument", FLAGCX_P2P_PATH="environment"))
        self.assertEqual(self.opened("FLAGCX_P2P_PATH=tcp"), "open")


if __name__ == "__main__":
    unittest.main()
