"""The name of a killed process vanishes with the lease that is the default, 10 s. Takes 22 s."""

import shutil
import subprocess
import sys
import time
import unittest

import pair  # the environment of the engines, first
from etcd_server import Etcd
from test_directory import PUBLISHES

from flagcx_p2p import Engine, NotPublished

assert pair


@unittest.skipUnless(shutil.which("etcd"), "etcd is not installed (package etcd-server)")
class DefaultLease(unittest.TestCase):
    def test_the_name_of_a_killed_process_vanishes(self) -> None:
        url = Etcd(self).url("test")
        command = [sys.executable, "-c", PUBLISHES, url, "decode-3"]
        pipe = subprocess.PIPE
        with Engine(directory=url) as engine, subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdout
            self.assertTrue(process.stdout.readline())
            # For longer than the lease it is prolonged.
            alive = time.monotonic()
            while time.monotonic() < alive + 12:
                self.assertEqual([peer.name for peer in engine.peers()], ["decode-3"])
                time.sleep(0.5)
            process.kill()
            process.wait()
            killed = time.monotonic()
            while engine.peers():
                self.assertLess(time.monotonic() - killed, 15)
                time.sleep(0.05)
            took = time.monotonic() - killed
            print(f"the name vanished {took:.1f} s after its process")
            # A third of the lease may have passed since it was prolonged.
            self.assertGreater(took, 6)
            with self.assertRaises(NotPublished):
                engine.connect("decode-3")


if __name__ == "__main__":
    unittest.main()
