"""`flagcx_p2p.mooncake.TransferEngine` with etcd as metadata server: a peer's `local_hostname` is its name."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest
from typing import Any

import pair  # the environment of the engines, first
from etcd_server import Etcd

from flagcx_p2p import Engine
from flagcx_p2p.mooncake import TransferEngine, _directory
from flagcx_p2p.mooncake._codes import Refused

assert pair
SIZE = 4096

#: A peer: its name, the metadata server. Says where its memory is, and ends with its input.
PEER = """
import ctypes, sys
from flagcx_p2p.mooncake import TransferEngine
engine, memory = TransferEngine(), ctypes.create_string_buffer(4096)
assert engine.initialize(sys.argv[1], sys.argv[2], "tcp", "") == 0
assert engine.register_memory(ctypes.addressof(memory), 4096) == 0
print(ctypes.addressof(memory), engine.get_rpc_port(), flush=True)
sys.stdin.read()
engine.close()
"""


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream
        stream.close()


class Forms(unittest.TestCase):
    def test_urls(self) -> None:
        for given, url in {
            "P2PHANDSHAKE": None,
            "etcd://h:2379": "etcd://h:2379/flagcx-p2p/mooncake",
            "h:2379": "etcd://h:2379/flagcx-p2p/mooncake",
            "etcd://a:1;b:2": "etcd://a:1,b:2/flagcx-p2p/mooncake",
            "etcds://u:p@a,b/site?ca=/x/y.pem": "etcds://u:p@a,b/site?ca=/x/y.pem",
            "etcd://h/?lease=3": "etcd://h/flagcx-p2p/mooncake?lease=3",
        }.items():
            self.assertEqual(_directory.url_of(given), url)
        for given in ("", "P2P", "http://h:8080/metadata", "redis://h:6379", "redis://:hunter2@h:6379"):
            with self.subTest(given), self.assertRaisesRegex(Refused, "use 'P2PHANDSHAKE', .* or etcd, \"etcd://host:2379\"") as raised:
                _directory.url_of(given)
            self.assertNotIn("hunter2", str(raised.exception))

    def test_names(self) -> None:
        for given, name in {
            "decode-3": "decode-3", "10.0.0.1:12345": "10.0.0.1/12345", "h:1:npu_0": "h/1/npu_0", "[fe80::1]:5": "fe80--1/5", "::1": "--1",
            "[::1]": "--1", "": "",
        }.items():  # fmt: skip
            self.assertEqual(_directory.name_of(given), name)


@unittest.skipUnless(shutil.which("etcd"), "etcd is not installed (package etcd-server)")
class OverEtcd(unittest.TestCase):
    def setUp(self) -> None:
        self.etcd = Etcd(self)
        self.servers = self.etcd.client.removeprefix("http://")
        self.near = ctypes.create_string_buffer(os.urandom(SIZE), SIZE)
        self.here = ctypes.addressof(self.near)
        self.engine = self.opened("prefill-0", f"etcd://{self.servers}")
        self.assertEqual(self.engine.register_memory(self.here, SIZE), 0)

    def opened(self, *names: str) -> TransferEngine:
        engine = TransferEngine()
        self.addCleanup(engine.close)
        self.assertEqual(engine.initialize(*names, "tcp", ""), 0)
        return engine

    def peer(self, name: str) -> "tuple[subprocess.Popen[str], int, str]":
        """The process, the address of its memory, and its port."""
        command = [sys.executable, "-c", PEER, name, f"etcd://{self.servers}"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(end, process)
        assert process.stdout
        address, port = process.stdout.readline().split()
        return process, int(address), port

    def moves(self, name: str, there: int) -> bool:
        """Whether bytes get there and back."""
        before = os.urandom(SIZE)
        self.near[:] = before
        if self.engine.transfer_sync_write(name, self.here, there, SIZE) != 0:
            return False
        ctypes.memset(self.here, 0, SIZE)
        self.assertEqual(self.engine.transfer_sync_read(name, self.here, there, SIZE), 0)
        self.assertEqual(self.near[:], before)
        return True

    def test_peers_are_found_by_the_names_that_they_were_given(self) -> None:
        for name in ("decode-3", "127.0.0.1:12345"):
            _, there, _ = self.peer(name)
            self.assertTrue(self.moves(name, there), name)
            self.assertEqual(self.engine.get_first_buffer_address(name), there)
            self.assertEqual(self.engine.send_probe(name), 0)
        self.assertEqual([self.engine.send_probe(name) for name in ("decode-4", "not a name")], [-102, -101])
        with Engine(directory=self.etcd.url("flagcx-p2p/mooncake")) as other:
            self.assertEqual([peer.name for peer in other.peers()], ["127.0.0.1/12345", "decode-3", "prefill-0"])
            other.connect("decode-3")

    def test_each_form_of_the_server_leads_there(self) -> None:
        with_ext = TransferEngine()
        self.addCleanup(with_ext.close)
        self.assertEqual(with_ext.initialize_ext("a", self.servers, "tcp", "", "etcd"), 0)
        for name, server in {"b": self.servers, "c": f"etcd://127.0.0.1:1;{self.servers}"}.items():
            self.opened(name, server)
        self.assertEqual([self.engine.send_probe(name) for name in "abc"], [0, 0, 0])

    def test_a_peer_that_was_started_again_is_found_and_one_that_ended_is_not(self) -> None:
        first, there, port = self.peer("decode-3")
        self.assertTrue(self.moves("decode-3", there))
        first.kill()
        first.wait()
        second, there, other_port = self.peer("decode-3")
        self.assertNotEqual(port, other_port)
        # The first call may be the one that learns of the death.
        started = time.monotonic()
        self.assertTrue(self.moves("decode-3", there) or self.moves("decode-3", there))
        self.assertLess(time.monotonic() - started, 2)
        assert second.stdin
        second.stdin.close()
        self.assertEqual(second.wait(30), 0)
        with self.assertLogs("flagcx_p2p.mooncake", "ERROR") as log:
            self.assertFalse(self.moves("decode-3", there))
            self.assertFalse(self.moves("decode-3", there))
        self.assertIn("no such name", log.output[-1])

    def test_a_name_in_use_is_refused(self) -> None:
        self.peer("decode-3")
        second = TransferEngine()
        with self.assertLogs("flagcx_p2p.mooncake", "ERROR") as log:
            self.assertEqual(second.initialize("decode-3", self.servers, "tcp", ""), -1)
        self.assertIn("in use by the engine at", log.output[0])
        self.assertIsNone(second.get_engine())

    def test_known_peers_go_on_without_etcd(self) -> None:
        _, there, _ = self.peer("decode-3")
        self.assertTrue(self.moves("decode-3", there))
        self.etcd.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.etcd.process.pid, os.WSTOPPED | os.WNOWAIT)
        started = time.monotonic()
        self.assertTrue(self.moves("decode-3", there))
        self.assertLess(time.monotonic() - started, 1, "it is not looked up again")
        calls: "list[Any]" = [lambda: self.engine.send_probe("decode-4"), lambda: TransferEngine().initialize("x", self.servers, "tcp", "")]
        self.assertEqual([call() for call in calls], [-102, -1])
        self.assertLess(time.monotonic() - started, 6, "each call is bounded")


if __name__ == "__main__":
    unittest.main()
