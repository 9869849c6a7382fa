"""A real etcd, which a test starts."""

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.request


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Etcd:
    """A server of one member, in a folder of its own."""

    def __init__(self, case: unittest.TestCase) -> None:
        self.folder = tempfile.mkdtemp()
        case.addCleanup(shutil.rmtree, self.folder, True)
        case.addCleanup(self.kill)
        self.client, peer = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
        self.command = ["etcd", "--data-dir", self.folder, "--initial-cluster", f"default={peer}"]
        for option, url in (("client", self.client), ("peer", peer)):
            self.command += [f"--listen-{option}-urls", url]
        self.command += ["--advertise-client-urls", self.client, "--initial-advertise-peer-urls", peer]
        self.start()

    def start(self) -> None:
        environment = dict(os.environ)
        if platform.machine() in ("aarch64", "arm64"):
            # Before 3.5 etcd refuses to run there without it.
            environment["ETCD_UNSUPPORTED_ARCH"] = "arm64"
        self.process = subprocess.Popen(self.command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.client}/health", timeout=1) as answer:
                if b"true" in answer.read():
                    return
            assert self.process.poll() is None, "etcd has ended"
            time.sleep(0.05)
        raise AssertionError("etcd does not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def url(self, rest: str = "test?lease=3") -> str:
        return f"etcd{self.client[4:]}/{rest}"
