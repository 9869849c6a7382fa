"""Peers by name: a list of them, and etcd where it is installed."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
from typing import Any, Iterator

import pair  # the environment of the engines, first
from etcd_server import Etcd, free_port
from flagcx_p2p import Engine, NameInUse, NotPublished, P2pError

assert pair
#: What `pair` sets as the longest time of a connect, and so of a look-up.
LIMIT_S = 1.0


class AList(unittest.TestCase):
    def setUp(self) -> None:
        self.peer = Engine()
        self.addCleanup(self.peer.close)
        self.peer.start_server()
        self.url = f"static:decode-3={self.peer.session}"
        self.engine = Engine(directory=self.url)
        self.addCleanup(self.engine.close)

    def test_a_name_is_connected_to_as_its_address_is(self) -> None:
        source, target = bytearray(os.urandom(4096)), bytearray(4096)
        local, remote = self.engine.register(source), self.peer.register(target)
        connection = self.engine.connect("decode-3")
        connection.write(local, remote.address)
        self.assertEqual(source, target)
        self.assertEqual(connection.peer, self.peer.session)
        again = self.engine.connect(self.peer.session)
        again.read(local, remote.address)
        self.assertEqual(self.engine.snapshot()["uptime_seconds"] >= 0, True)

    def test_names_that_are_not_there(self) -> None:
        with self.assertRaisesRegex(NotPublished, "no such name; .*; the names there are decode-3"):
            self.engine.connect("decode3")
        for name in ("", "a b", "a//b", "ä", "n" * 254):
            with self.subTest(name), self.assertRaises(ValueError):
                self.engine.connect(name)
            with self.subTest(name), self.assertRaises(ValueError):
                self.engine.publish(name)

    def test_without_a_directory_addresses_work(self) -> None:
        with Engine() as engine:
            engine.connect(self.peer.session)
            calls: "list[Any]" = [lambda: engine.connect("decode-3"), lambda: engine.publish("decode-3"), engine.peers]
            for call in calls:
                with self.assertRaisesRegex(P2pError, r"Engine\(directory=...\) or FLAGCX_P2P_DIRECTORY"):
                    call()
            self.assertEqual(engine.published, {})

    def test_urls_that_are_none(self) -> None:
        for url in ("", "decode-3", "redis://h", "etcd://", "static:decode-3=nowhere"):
            with self.subTest(url), self.assertRaises(ValueError):
                Engine(directory=url)
        with self.assertRaisesRegex(P2pError, "/no/such/list"):
            Engine(directory="static:/no/such/list")
        with self.assertRaises(ValueError) as raised:
            Engine(directory="etcd://user:hunter2@h:99999/p")
        self.assertNotIn("hunter2", str(raised.exception))

    def test_the_variable_names_it_too(self) -> None:
        with Engine(settings={"FLAGCX_P2P_DIRECTORY": self.url}) as engine:
            self.assertEqual([(peer.name, peer.address) for peer in engine.peers()], [("decode-3", self.peer.session)])
            self.assertEqual(engine.peers("prefill"), [])
            engine.connect("decode-3")

    def test_a_list_is_published_to_by_hand(self) -> None:
        with self.assertRaisesRegex(P2pError, "add the line decode-3=.* to it, or use etcd"):
            self.engine.publish("decode-3")
        with self.assertRaisesRegex(P2pError, "add the line"):
            Engine(directory=self.url, name="decode-3")
        port = free_port()
        settings = {"FLAGCX_P2P_PORT_RANGE": f"{port}-{port}"}
        with Engine(directory=f"static:me=127.0.0.1:{port}", name="me", settings=settings) as engine:
            self.assertEqual(engine.published, {"me": True})

    def test_a_closed_engine_knows_no_names(self) -> None:
        self.engine.close()
        calls: "list[Any]" = [
            lambda: self.engine.connect("decode-3"), lambda: self.engine.publish("x"), lambda: self.engine.withdraw("x"), self.engine.peers,
        ]
        for call in calls:
            with self.assertRaisesRegex(P2pError, "closed"):
                call()

    def test_async_forms(self) -> None:
        async def run() -> None:
            peers, connection = await asyncio.gather(self.engine.peers_async("de"), self.engine.connect_async("decode-3"))
            self.assertEqual((peers[0].name, connection.peer), ("decode-3", self.peer.session))
            with self.assertRaisesRegex(P2pError, "add the line"):
                await self.engine.publish_async("decode-3")
            with self.assertRaises(NotPublished):
                await self.engine.connect_async("x")

        asyncio.run(run())


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """The URL of a directory that accepts connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"etcd://127.0.0.1:{listener.getsockname()[1]}/silent"


class Waits(unittest.TestCase):
    """A directory that does not answer."""

    def test_each_call_ends_by_its_limit_and_lets_other_threads_run(self) -> None:
        with silent() as url, Engine(directory=url) as engine:
            calls: "list[Any]" = [engine.peers, lambda: engine.publish("a"), lambda: engine.connect("b")]
            for call in calls:
                turns, ended = 0, threading.Event()

                def count() -> None:
                    nonlocal turns
                    while not ended.wait(0.01):
                        turns += 1

                counting = threading.Thread(target=count)
                counting.start()
                started = time.monotonic()
                with self.assertRaises(P2pError):
                    call()
                took = time.monotonic() - started
                ended.set()
                counting.join()
                self.assertTrue(LIMIT_S / 2 < took < LIMIT_S + 2, took)
                self.assertGreater(turns, 10)

    def test_ctrl_c_ends_them(self) -> None:
        settings = {"FLAGCX_P2P_CONNECT_TIMEOUT_MS": "20000"}
        with silent() as url, Engine(directory=url, settings=settings) as engine:
            calls: "list[Any]" = [engine.peers, lambda: engine.publish("a"), lambda: engine.connect("b")]
            for call in calls:
                before = signal.signal(signal.SIGALRM, signal.default_int_handler)
                started = time.monotonic()
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                with self.assertRaises(KeyboardInterrupt):
                    call()
                signal.signal(signal.SIGALRM, before)
                self.assertLess(time.monotonic() - started, 2)
            self.assertEqual(engine.published, {})

    def test_a_peer_that_is_gone_is_told_with_its_address(self) -> None:
        port = free_port()
        with Engine(directory=f"static:gone=127.0.0.1:{port}") as engine:
            with self.assertRaisesRegex(P2pError, f'"gone": its peer at 127.0.0.1:{port} does not answer: .*refused'):
                engine.connect("gone")


#: Publishes a name, says so, and ends with its input.
PUBLISHES = """
import sys
from flagcx_p2p import Engine
engine = Engine(directory=sys.argv[1], name=sys.argv[2])
print(engine.session, flush=True)
sys.stdin.read()
engine.close()
"""


@unittest.skipUnless(shutil.which("etcd"), "etcd is not installed (package etcd-server)")
class OverEtcd(unittest.TestCase):
    def setUp(self) -> None:
        self.etcd = Etcd(self)
        self.engine = Engine(directory=self.etcd.url())
        self.addCleanup(self.engine.close)

    def other(self, name: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", PUBLISHES, self.etcd.url(), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

        def end() -> None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream
                stream.close()

        self.addCleanup(end)
        assert process.stdout
        self.assertTrue(process.stdout.readline(), "it has published its name")
        return process

    def names(self) -> "list[str]":
        return [peer.name for peer in self.engine.peers()]

    def test_published_in_use_and_withdrawn(self) -> None:
        other = self.other("decode-3")
        (peer,) = self.engine.peers()
        self.assertEqual((peer.name, peer.kind, peer.pid), ("decode-3", "python", other.pid))
        self.assertLess(abs(peer.since - time.time()), 60)
        self.assertEqual(self.engine.connect("decode-3").peer, peer.address)
        with self.assertRaisesRegex(NameInUse, f"in use by the engine at {peer.address} .*pid {other.pid}"):
            self.engine.publish("decode-3")
        self.assertEqual(self.engine.published, {})

        self.engine.publish("prefill/0")
        self.engine.publish("prefill/0")
        self.engine.publish("prefill/1")
        self.assertEqual(self.engine.published, {"prefill/0": True, "prefill/1": True})
        self.assertEqual(self.names(), ["decode-3", "prefill/0", "prefill/1"])
        self.engine.withdraw("prefill/0")
        self.engine.withdraw("never")
        self.assertEqual(self.names(), ["decode-3", "prefill/1"])
        assert other.stdin
        other.stdin.close()
        self.assertEqual(other.wait(30), 0)
        with Engine(directory=self.etcd.url()) as third:
            self.engine.close()
            self.assertEqual(third.peers(), [], "what is closed has no name")

    def test_a_peer_that_was_started_again_is_found_within_a_second(self) -> None:
        first = self.other("decode-3")
        before = self.engine.connect("decode-3")
        first.kill()
        first.wait()
        second = self.other("decode-3")
        started = time.monotonic()
        after = self.engine.connect("decode-3")
        took = time.monotonic() - started
        self.assertLess(took, 1)
        self.assertNotEqual(after.peer, before.peer)
        self.assertEqual([peer.pid for peer in self.engine.peers()], [second.pid])

    def test_a_file_server_is_no_peer(self) -> None:
        command = [sys.executable, "-m", "flagcx_p2p", "serve", self.etcd.folder, "--port", "0", "--directory", self.etcd.url(), "--name", "files"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            try:
                assert server.stdout
                self.assertIn("listening on", server.stdout.readline())
                with self.assertRaisesRegex(P2pError, "files is a `flagcx-p2p serve`"):
                    self.engine.connect("files")
            finally:
                server.kill()

    def test_of_two_that_publish_one_name_at_once_one_wins(self) -> None:
        engines = [Engine(directory=self.etcd.url()) for _ in range(4)]
        ended: "list[str]" = []

        def publish(engine: Engine) -> None:
            try:
                engine.publish("one")
                ended.append("has it")
            except NameInUse:
                ended.append("in use")

        threads = [threading.Thread(target=publish, args=(engine,)) for engine in engines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(ended), ["has it", "in use", "in use", "in use"])
        for engine in engines:
            engine.close()
        self.assertEqual(self.names(), [])

    def test_etcd_is_gone_for_less_than_the_lease(self) -> None:
        other = self.other("decode-3")
        peer = self.engine.peers()[0]
        self.etcd.kill()
        started = time.monotonic()
        for call in (self.engine.peers, lambda: self.engine.connect("decode-3"), lambda: self.engine.publish("x")):
            with self.assertRaisesRegex(P2pError, "check that they run and can be reached"):
                call()
        self.assertLess(time.monotonic() - started, 3 * LIMIT_S + 1)
        # Those that know the address go on.
        self.engine.connect(peer.address)
        self.etcd.start()
        self.assertEqual(self.names(), ["decode-3"])
        self.assertIsNone(other.poll())

    def test_the_end_of_an_engine_waits_once_for_a_silent_etcd(self) -> None:
        engine = Engine(directory=self.etcd.url())
        for index in range(5):
            engine.publish(f"n{index}")
        self.etcd.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.etcd.process.pid, os.WSTOPPED | os.WNOWAIT)
        started = time.monotonic()
        engine.close()
        del engine
        # 2 s for all names, and not again for their lease.
        self.assertLess(time.monotonic() - started, 3.5)

    def test_a_task_that_is_cancelled_leaves_no_name(self) -> None:
        async def run() -> None:
            publishing = asyncio.ensure_future(self.engine.publish_async("late"))
            await asyncio.sleep(0)
            publishing.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await publishing
            await self.engine.publish_async("kept")

        asyncio.run(run())
        self.assertEqual(self.names(), ["kept"])
        self.assertEqual(self.engine.published, {"kept": True})

    def test_a_forked_process_neither_holds_nor_withdraws_it(self) -> None:
        self.engine.publish("mine")
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                self.engine.close()
                try:
                    self.engine.publish("other")
                except P2pError:
                    status = 0
            os._exit(status)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        self.assertEqual(self.names(), ["mine"])


if __name__ == "__main__":
    unittest.main()
