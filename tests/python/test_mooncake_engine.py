"""`flagcx_p2p.mooncake.TransferEngine`: what it promises beyond Mooncake's results."""

import ctypes
import json
import mmap
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import unittest.mock
from typing import Any

import pair  # noqa: F401  the engine's environment
from cuda_driver import Driver, build_stand_in

from flagcx_p2p import Engine, P2pError
from flagcx_p2p.mooncake import TransferEngine, TransferNotify, TransferOpcode, _address, _opening, _topology

SIZE = 1 << 16


class Two(unittest.TestCase):
    """Two engines of this process, with memory."""

    def setUp(self) -> None:
        self.near, self.far = ctypes.create_string_buffer(os.urandom(SIZE), SIZE), ctypes.create_string_buffer(SIZE)
        self.here, self.there = ctypes.addressof(self.near), ctypes.addressof(self.far)
        self.client, self.server = self.opened(), self.opened()
        self.assertEqual(self.client.register_memory(self.here, SIZE), 0)
        self.assertEqual(self.server.register_memory(self.there, SIZE), 0)
        self.peer = f"127.0.0.1:{self.server.get_rpc_port()}"

    def opened(self, protocol: str = "tcp") -> TransferEngine:
        engine = TransferEngine()
        self.addCleanup(engine.close)
        self.assertEqual(engine.initialize("127.0.0.1", "P2PHANDSHAKE", protocol, ""), 0)
        return engine


class Calls(Two):
    def test_threads_share_an_engine(self) -> None:
        part, wrong = SIZE // 16, []

        def work(number: int) -> None:
            at = number * part
            for _ in range(20):
                codes = [
                    self.client.transfer_sync_write(self.peer, self.here + at, self.there + at, part),
                    self.client.get_batch_transfer_status(
                        [self.client.batch_transfer_async_read(self.peer, [self.here + at], [self.there + at], [part])]
                    ),
                ]
                wrong.extend(code for code in codes if code != 0)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])
        self.assertEqual(self.near.raw, self.far.raw)

    def test_threads_that_initialize_at_once_leave_one_engine(self) -> None:
        opened: "list[Engine]" = []

        def open_engine(*arguments: str) -> Engine:
            opened.append(real(*arguments))
            return opened[-1]

        real, shared = _opening.open_engine, TransferEngine()
        self.addCleanup(shared.close)
        with unittest.mock.patch("flagcx_p2p.mooncake._base.open_engine", open_engine):
            work = [threading.Thread(target=shared.initialize, args=("127.0.0.1", "P2PHANDSHAKE", "tcp", "")) for _ in range(4)]
            for thread in work:
                thread.start()
            for thread in work:
                thread.join()
        self.assertEqual([engine for engine in opened if not engine.closed], [shared.get_engine()])
        shared.close()
        self.assertTrue(all(engine.closed for engine in opened))

    def test_a_closed_engine_fails_every_call(self) -> None:
        number = self.client.transfer_submit_write(self.peer, self.here, self.there, 64)
        self.assertEqual(self.client.get_batch_transfer_status([number]), 0)
        self.client.close()
        self.client.close()
        with self.assertLogs("flagcx_p2p.mooncake", "ERROR") as log:
            self.assertEqual(self.client.transfer_sync_write(self.peer, self.here, self.there, 64), -1)
            self.assertEqual(self.client.transfer_submit_write(self.peer, self.here, self.there, 64), 0)
            self.assertEqual(self.client.register_memory(self.here, SIZE), -1)
            self.assertEqual(self.client.unregister_memory(self.here), -1)
            self.assertEqual(self.client.allocate_managed_buffer(64), 0)
            self.assertEqual(self.client.send_probe(self.peer), -1)
            self.assertEqual(self.client.transfer_check_status(number), -1)
        self.assertIn("call initialize() first", log.output[0])
        self.assertRaises(P2pError, self.client.get_rpc_port)
        self.assertRaises(P2pError, self.client.get_notifies)

    def test_memory_that_was_registered_again_is_found(self) -> None:
        """The next call may come before the peer's announcement of that: it has the key of before."""
        memory = ctypes.create_string_buffer(64)
        other = ctypes.addressof(memory)
        calls: "dict[str, Any]" = {
            "write": lambda: self.client.transfer_sync_write(self.peer, self.here, self.there, SIZE),
            "async_write": lambda: self.client.get_batch_transfer_status([self.started()]),
            "submit_write": lambda: self.polled(self.client.transfer_submit_write(self.peer, self.here, self.there, SIZE)) - 1,
        }
        for name, call in calls.items():
            for number in range(20):
                with self.subTest(name, number=number):
                    self.near[:] = os.urandom(SIZE)
                    # After one announcement the next waits for a millisecond.
                    self.assertEqual(self.server.register_memory(other, 64), 0)
                    self.assertEqual(self.server.unregister_memory(other), 0)
                    self.assertEqual(self.server.unregister_memory(self.there), 0)
                    self.assertEqual(self.server.register_memory(self.there, SIZE), 0)
                    self.assertEqual(call(), 0)
                    self.assertEqual(self.near.raw, self.far.raw)

    def started(self) -> int:
        return self.client.batch_transfer_async_write(self.peer, [self.here], [self.there], [SIZE])

    def polled(self, number: int) -> int:
        while (code := self.client.transfer_check_status(number)) == 0:
            time.sleep(0.0001)
        return code

    def test_a_number_is_good_for_one_end(self) -> None:
        number = self.client.batch_transfer_async_write(self.peer, [self.here], [self.there], [64])
        while (code := self.client.transfer_check_status(number)) == 0:
            pass
        self.assertEqual([code, self.client.transfer_check_status(number)], [1, -1])
        self.assertEqual(self.client.get_batch_transfer_status([number]), -1)
        empty = self.client.batch_transfer_async_write(self.peer, [], [], [])
        self.assertEqual(self.client.transfer_check_status(empty), 1)

    def test_the_first_buffer_is_the_oldest_that_is_left(self) -> None:
        half = self.there + SIZE // 2
        # Before the connection: the oldest has the higher address.
        codes = [self.server.unregister_memory(self.there)]
        codes += [self.server.register_memory(half, SIZE // 2), self.server.register_memory(self.there, 64)]
        self.assertEqual(self.client.get_first_buffer_address(self.peer), half)
        # And after it.
        codes += [self.server.register_memory(self.there + 64, 64), self.server.unregister_memory(half)]
        self.assertEqual(self.client.get_first_buffer_address(self.peer), self.there)
        codes += [self.server.unregister_memory(self.there), self.server.unregister_memory(self.there + 64)]
        self.assertEqual(self.client.get_first_buffer_address(self.peer), 0)
        self.assertEqual(codes, [0] * 7)

    def test_it_ends_when_nothing_refers_to_it(self) -> None:
        self.assertEqual(self.client.transfer_sync_write(self.peer, self.here, self.there, 64), 0)
        self._cleanups.clear()
        del self.server
        self.assertEqual(self.client.transfer_sync_write(self.peer, self.here, self.there, 64), -1)
        self.client.close()

    def test_what_is_mapped_for_reading_can_be_sent_but_not_written(self) -> None:
        with tempfile.TemporaryFile() as file:
            file.write(b"x" * 4096)
            file.flush()
            with mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ):
                inode = f" {os.fstat(file.fileno()).st_ino} "
                maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
                address = next(int(line.split("-")[0], 16) for line in maps if inode in line)
                self.assertEqual(self.client.register_memory(address, 4096), 0)
                self.assertEqual(self.client.transfer_sync_write(self.peer, address, self.there, 4096), 0)
                self.assertEqual(self.far.raw[:4096], b"x" * 4096)
                self.assertEqual(self.client.transfer_sync_read(self.peer, address, self.there, 4096), -1)
                self.assertEqual(self.client.write_bytes_to_buffer(address, b"y", 1), -1)
                self.assertEqual(self.client.read_bytes_from_buffer(address, 4096), b"x" * 4096)
                self.assertEqual(self.client.unregister_memory(address), 0)

    def test_a_notification_of_an_engine_is_a_message(self) -> None:
        with Engine() as other:
            other.connect(self.peer).notify(b"name", "text ß".encode())
            deadline = time.monotonic() + 10
            while not (found := self.server.get_notifies()):
                self.assertLess(time.monotonic(), deadline)
        self.assertEqual([(one.name, one.msg) for one in found], [("name", "text ß")])

    def test_a_message_that_cannot_be_sent_stops_the_transfer(self) -> None:
        for name in ("n" * 257, "a\0b"):
            code = self.client.transfer_sync(
                self.peer, self.here, self.there, SIZE, TransferOpcode.Write, TransferNotify(name, "text")
            )
            self.assertEqual([code, self.far.raw], [-1, bytes(SIZE)])

    def test_memory_that_is_not_registered_is_lent_for_the_call(self) -> None:
        other = ctypes.create_string_buffer(b"lent", 64)
        with self.assertLogs("flagcx_p2p.mooncake", "WARNING"):
            number = self.client.batch_transfer_async_write(self.peer, [ctypes.addressof(other)], [self.there], [4])
            self.assertEqual(self.client.get_batch_transfer_status([number]), 0)
        self.assertEqual(self.far.raw[:4], b"lent")
        engine = self.client.get_engine()
        assert engine is not None
        self.assertEqual(engine.stats()["regions"], 2)


class Gpu(Two):
    """Memory of a GPU, which the CPU cannot access: that of the stand-in ../nullcuda."""

    gpu: Driver

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.gpu = Driver(build_stand_in(folder.name))

    def test_memory_of_a_gpu_is_registered_by_its_address(self) -> None:
        address = self.gpu.allocate(SIZE)
        self.addCleanup(self.gpu.free, address)
        self.assertEqual(self.server.register_memory(address, SIZE, "cuda:0"), 0)
        self.assertEqual(self.client.transfer_sync_write(self.peer, self.here, address, SIZE), 0)
        self.assertEqual(self.gpu.get(address, SIZE), self.near.raw)
        self.assertEqual(self.client.batch_transfer_sync_read(self.peer, [self.here, self.here + 8], [address + 8, address], [8, 8]), 0)
        self.assertEqual(self.near.raw[:16], self.gpu.get(address, 16)[8:] + self.gpu.get(address, 8))
        self.assertEqual(self.server.unregister_memory(address), 0)


class Opening(unittest.TestCase):
    def code(self, *arguments: Any, **environment: str) -> "tuple[int, str]":
        """What `initialize` answers in a process of its own, and its log."""
        program = (
            "import sys; from flagcx_p2p.mooncake import TransferEngine; engine = TransferEngine(); "
            f"print(engine.initialize(*{arguments!r}), engine.get_engine() and engine.get_engine().session)"
        )
        plain = {key: value for key, value in os.environ.items() if not key.startswith("FLAGCX_P2P_")}
        ended = subprocess.run(
            [sys.executable, "-c", program], env={**plain, **environment}, capture_output=True, text=True, timeout=60, check=True
        )
        code, session = ended.stdout.split()
        return int(code), session + ended.stderr

    def test_a_refusal_says_what_to_use(self) -> None:
        for metadata in ("http://127.0.0.1:8080/metadata", "redis://127.0.0.1:6379", "P2P"):
            code, text = self.code("127.0.0.1", metadata, "tcp", "")
            self.assertEqual(code, -1)
            self.assertIn(f"metadata_server '{metadata}' is not supported: use 'P2PHANDSHAKE'", text)
        code, text = self.code("127.0.0.1", "P2PHANDSHAKE", "nvlink", "")
        self.assertEqual(code, -1)
        self.assertRegex(text, "protocol 'nvlink' is not supported: use 'rdma'.* or 'tcp'")

    def test_rdma_without_a_nic_is_no_success(self) -> None:
        if _opening.INFINIBAND.is_dir():
            print("\nnot run: rdma without a NIC: this host has one")
            return
        code, text = self.code("127.0.0.1", "P2PHANDSHAKE", "rdma", "")
        self.assertEqual(code, -1)
        self.assertIn("Use protocol 'tcp', or set FLAGCX_P2P_FABRIC=software", text)
        self.assertEqual(self.code("127.0.0.1", "P2PHANDSHAKE", "rdma", "", MC_FORCE_TCP="1")[0], 0)
        code, text = self.code("127.0.0.1", "P2PHANDSHAKE", "rdma", "mlx5_0", FLAGCX_P2P_FABRIC="software")
        self.assertEqual(code, 0)
        self.assertIn("bytes move by software", text)

    def test_rdma_with_a_nic_moves_over_it(self) -> None:
        """Over a stand-in for libibverbs."""
        stand_in = pathlib.Path(__file__).parent.parent / "nullverbs" / "build.sh"
        with tempfile.TemporaryDirectory() as folder:
            built = subprocess.run([stand_in, folder], capture_output=True, text=True)
            if built.returncode != 0:
                print(f"\nnot run: rdma with a NIC: {stand_in.name} needs a C compiler and libibverbs-dev: {built.stderr.strip()[-200:]}")
                return
            verbs = {"FLAGCX_P2P_IBVERBS": f"{folder}/lib/libibverbs.so.1", "NULLVERBS_COPY": "1"}
            for device in ("", "nv0"):
                self.assertEqual(self.code("127.0.0.1", "P2PHANDSHAKE", "rdma", device, **verbs)[0], 0)
            code, text = self.code("127.0.0.1", "P2PHANDSHAKE", "rdma", "mlx5_7", **verbs)
            self.assertEqual(code, -1)
            self.assertIn("device_name 'mlx5_7': no such RDMA device has an active port", text)
            # As a program that asks for TCP wants it, with a NIC in the host.
            program = (
                "from flagcx_p2p.mooncake import TransferEngine; one = TransferEngine(); "
                "assert one.initialize('127.0.0.1', 'P2PHANDSHAKE', {!r}, '') == 0; "
                "print({{m['labels']['provider'] for m in one.get_engine().snapshot()['metrics'] if m['name'].endswith('device_info')}})"
            )
            plain = {key: value for key, value in os.environ.items() if not key.startswith("FLAGCX_P2P_")}
            for protocol, provider in {"tcp": "software", "rdma": "verbs", "": "verbs"}.items():
                command = [sys.executable, "-c", program.format(protocol)]
                shown = subprocess.run(command, env={**plain, **verbs}, capture_output=True, text=True, timeout=60)
                self.assertEqual(shown.stdout.strip(), f"{{'{provider}'}}", f"{protocol}: {shown.stderr}")

    def test_the_engine_listens_where_peers_look_for_it(self) -> None:
        for host in ("127.0.0.2", "127.0.0.2:12345", "localhost"):
            code, text = self.code(host, "P2PHANDSHAKE", "tcp", "")
            self.assertEqual(code, 0, text)
            self.assertRegex(text, r"^127\.0\.0\.[12]:|^\[::1\]:")
        code, text = self.code("127.0.0.2", "P2PHANDSHAKE", "tcp", "", FLAGCX_P2P_BIND="127.0.0.1")
        self.assertTrue(text.startswith("127.0.0.1:"), text)
        # Not an address of this host: that of a forwarder.
        code, text = self.code("203.0.113.77", "P2PHANDSHAKE", "tcp", "")
        self.assertTrue(code == 0 and text.startswith("203.0.113.77:"), text)

    def test_hosts_of_names(self) -> None:
        for name, host in {
            "a": "a", "a:1": "a", "a:1:npu_0": "a", "10.0.0.1": "10.0.0.1", "10.0.0.1:1": "10.0.0.1", "::1": "::1", "[::1]:5": "::1", "[::1]": "::1", "": "",
        }.items():  # fmt: skip
            self.assertEqual(_address.host_of(name), host)
        for name, is_session in {"a:1": True, "[::1]:1": True, "a": False, ":1": False, "a:x": False, "a:65536": False, "": False}.items():
            self.assertEqual(_address.is_session(name), is_session, name)
        # A name that /etc/hosts gives a loopback address tells other hosts nothing.
        with unittest.mock.patch.dict(os.environ), unittest.mock.patch("socket.getaddrinfo") as found:
            os.environ.pop("FLAGCX_P2P_BIND", None)
            found.return_value = [(None, None, None, None, ("127.0.1.1", 0))]
            self.assertEqual(_address.settings("trainer-0"), {})

    def test_the_topology_has_the_devices_by_node(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            devices, nodes = pathlib.Path(folder) / "infiniband", pathlib.Path(folder) / "node"
            for name, node in {"mlx5_0": "0", "mlx5_1": "1", "mlx5_2": "-1"}.items():
                (devices / name / "device").mkdir(parents=True)
                (devices / name / "device" / "numa_node").write_text(node)
            for node in "01":
                (nodes / f"node{node}").mkdir(parents=True)
            with unittest.mock.patch.multiple(_topology, INFINIBAND=devices, _NODES=nodes):
                found = json.loads(TransferEngine().get_local_topology())
                self.assertEqual(found, {"cpu:0": [["mlx5_0", "mlx5_2"], ["mlx5_1"]], "cpu:1": [["mlx5_1"], ["mlx5_0", "mlx5_2"]]})
                self.assertEqual(json.loads(TransferEngine().get_local_topology("mlx5_1"))["cpu:0"], [[], ["mlx5_1"]])


class Deadlines(unittest.TestCase):
    """Seven seconds, in which it waits."""

    PROGRAM = """
import ctypes, sys, time
from flagcx_p2p.mooncake import TransferEngine
engine, size = TransferEngine(), 1 << 20
memory = ctypes.create_string_buffer(size)
assert engine.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") == 0 and engine.register_memory(ctypes.addressof(memory), size) == 0
if len(sys.argv) == 1:
    print(engine.get_rpc_port(), ctypes.addressof(memory), flush=True)
    sys.stdin.read()
else:
    peer, there = f"127.0.0.1:{sys.argv[1]}", int(sys.argv[2])
    here = ctypes.addressof(memory)
    assert engine.transfer_sync_write(peer, here, there, size) == 0
    print("ready", flush=True)
    sys.stdin.readline()
    begun = time.monotonic()
    number = engine.batch_transfer_async_write(peer, [here], [there], [size])
    code = engine.transfer_sync_write(peer, here, there, size)
    while (started := engine.transfer_check_status(number)) == 0:
        time.sleep(0.01)
    print(code, started, time.monotonic() - begun)
"""

    def test_a_peer_that_stands_still_is_given_up(self) -> None:
        environment = {**os.environ, "FLAGCX_P2P_PATH": "tcp", "MC_TRANSFER_TIMEOUT": "1"}

        def start(*arguments: str) -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [sys.executable, "-c", self.PROGRAM, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, env=environment,
            )  # fmt: skip
            self.addCleanup(process.communicate)
            self.addCleanup(process.kill)
            return process

        server = start()
        assert server.stdout is not None
        client = start(*server.stdout.readline().split())
        assert client.stdout is not None and client.stdin is not None
        self.assertEqual(client.stdout.readline(), "ready\n")
        server.send_signal(signal.SIGSTOP)
        # Its threads stop one after the other, and may move the bytes before.
        os.waitid(os.P_PID, server.pid, os.WSTOPPED | os.WNOWAIT)
        client.stdin.write("\n")
        client.stdin.flush()
        code, started, seconds = client.stdout.readline().split()
        self.assertEqual(int(code), -1)
        self.assertIn(int(started), (-1, -2), "the connection may be given up first")
        self.assertTrue(5 <= float(seconds) < 15, f"{seconds} s; MC_TRANSFER_TIMEOUT is at least 5")


if __name__ == "__main__":
    unittest.main()
