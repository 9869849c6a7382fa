"""Engines in a program that forks: by os.fork, by multiprocessing, and as servers that fork their workers do."""

import asyncio
import gc
import multiprocessing
import os
import signal
import threading
import time
import traceback
import unittest
from typing import Any, Callable, Dict, List, Tuple

from pair import Pair
from programs import PAIR, Program

import flagcx_p2p
from flagcx_p2p import Engine, Piece, _asyncio


def wait_for(pid: int, seconds: float = 30) -> int:
    """The status of a process that ends within that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended == pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")


def transfer(session: str, address: int, seed: int) -> int:
    """Writes 4,096 bytes with an engine of this process and reads them back; answers the process."""
    sent = bytes([seed % 256]) * 4096
    with Engine() as engine:
        source, target = bytearray(sent), bytearray(4096)
        connection = engine.connect(session)
        connection.write(engine.register(source), address)
        connection.read(engine.register(target), address)
        assert target == sent, "other bytes"
    return os.getpid()


class Forks(Pair):
    def child(self, work: Callable[[], Any], status: int = 0) -> None:
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            code = 1
            try:
                work()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        self.assertEqual(wait_for(pid), status)

    def parent_is_unharmed(self) -> None:
        self.source[:] = os.urandom(self.SIZE)
        self.connection.write(self.local, self.remote.address)
        self.assertEqual(self.target, self.source)
        info = self.connection.info()
        self.assertEqual(info.healthy_lanes, info.lanes)
        transfer(f"127.0.0.1:{self.server.port}", self.remote.address, 1)

    def test_a_lock_of_an_event_loop_that_another_thread_held_is_free(self) -> None:
        held, forked = threading.Event(), threading.Event()

        def hold() -> None:
            with _asyncio._changes:
                held.set()
                forked.wait(60)

        def work() -> None:
            async def look() -> None:
                _asyncio._reactor(asyncio.get_running_loop())

            asyncio.run(look())

        holder = threading.Thread(target=hold)
        holder.start()
        self.assertTrue(held.wait(60))
        try:
            self.child(work)
        finally:
            forked.set()
            holder.join()

    def test_a_child_may_drop_and_close_everything(self) -> None:
        def drop() -> None:
            self.local.close()
            self.client.close()
            self.server.close()
            del self.local, self.remote, self.connection, self.client, self.server
            gc.collect()

        self.child(drop)
        self.child(lambda: None)
        self.parent_is_unharmed()

    def test_every_use_in_a_child_is_refused_with_the_reason(self) -> None:
        # More pieces than are copied within the call.
        pieces = [Piece(self.local, self.remote.address)] * 17
        started = self.connection.start_write(pieces)
        prepared = self.connection.prepare("write", pieces)
        shared = self.client.allocate(4096)
        begins, there = self.local.address, self.remote.address

        async def awaited(what: Any) -> None:
            await what

        async def first() -> None:
            await anext(self.client.notified())

        parent, self.server_session = os.getpid(), self.server.session
        uses: List[Callable[[], Any]] = [
            lambda: self.client.port,
            self.client.start_server,
            self.client.notifications,
            lambda: self.client.register(bytearray(8)),
            lambda: self.client.connect("127.0.0.1:1"),
            self.connection.info,
            lambda: self.connection.notify(b"name"),
            lambda: self.connection.notify(b"name", bytes(1000)),
            lambda: self.connection.write(self.local, self.remote.address),
            lambda: self.connection.read(self.local, self.remote.address),
            lambda: self.connection.start_write(pieces[:1]),
            started.wait,
            started.done,
            started.cancel,
            lambda: self.client.address,
            lambda: self.client.session,
            lambda: self.client.notifications(1),
            lambda: asyncio.run(first()),
            lambda: self.client.register_many([bytearray(8)]),
            lambda: self.client.register_address(begins, 8),
            lambda: self.client.allocate(4096),
            lambda: self.client.slow_transfers(0),
            self.client.stats,
            self.client.snapshot,
            lambda: self.connection.write(self.local[1:5], there),
            lambda: self.connection.write(shared, there),
            lambda: self.connection.write_many([begins], [there], 8),
            lambda: self.connection.read_many(pieces),
            lambda: self.connection.start_read(pieces),
            lambda: self.connection.start_write(pieces, notify=(b"name", b"")),
            lambda: self.connection.prepare("read", pieces),
            prepared.start,
            lambda: prepared.start(notify=(b"name", b"")),
            prepared.run,
            lambda: asyncio.run(awaited(self.connection.write_async(self.local, there))),
            lambda: asyncio.run(awaited(self.connection.read_async(self.local, there))),
            lambda: asyncio.run(awaited(self.connection.write_many_async(pieces))),
            lambda: asyncio.run(awaited(self.connection.read_many_async([begins], [there], 8))),
            lambda: asyncio.run(awaited(started)),
        ]

        def use() -> None:
            for index, one in enumerate(uses):
                with self.assertRaisesRegex(flagcx_p2p.P2pError, f"forked from process {parent}", msg=str(index)):
                    one()
            # What tells no more than the object does.
            for text in repr(self.client), repr(self.connection), repr(prepared), repr(started), repr(shared):
                self.assertTrue(text)
            self.assertEqual((len(prepared), len(self.local[1:5])), (17, 4))
            self.assertEqual(self.connection.peer, self.server_session)
            for ended in shared.close, self.connection.close, self.local.close, self.client.close:
                ended()

        self.child(use)
        started.wait()
        self.parent_is_unharmed()

    def test_a_child_and_its_child_have_engines_of_their_own(self) -> None:
        session, address = f"127.0.0.1:{self.server.port}", self.remote.address

        def work() -> None:
            with Engine() as own:
                transfer(session, address, 2)
                self.child(lambda: transfer(session, address, 3))
                self.assertGreater(own.port, 0)

        self.child(work)
        self.parent_is_unharmed()

    def test_a_child_ends_as_interpreters_do(self) -> None:
        for end, status in (("sys.exit(5)", 5), ("pass", 0), ("os._exit(6)", 6), ("client.close(); sys.exit(7)", 7)):
            text = PAIR + (
                f"pid = os.fork()\nif pid == 0:\n    {end}\n    sys.exit(0)\n"
                f"assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == {status}\n"
                "connection.write(local, remote.address)\nassert far == near\n"
            )
            with self.subTest(end):
                self.assertEqual(Program(text).end(30)[1], "")


class Multiprocessing(Pair):
    def test_every_start_method(self) -> None:
        session, address = f"127.0.0.1:{self.server.port}", self.remote.address
        for method in ("fork", "forkserver", "spawn"):
            with self.subTest(method):
                context = multiprocessing.get_context(method)
                processes = [context.Process(target=transfer, args=(session, address, 4)) for _ in range(2)]
                # One after the other, because they write to the same place.
                for process in processes:
                    process.start()
                    process.join(40)
                    self.assertEqual(process.exitcode, 0)
                with context.Pool(1) as pool:
                    self.assertNotIn(os.getpid(), pool.starmap(transfer, [(session, address, n) for n in range(3)]))
                self.connection.write(self.local, self.remote.address)
                self.assertEqual(self.target, self.source)

    def test_an_engine_as_an_argument_is_refused(self) -> None:
        context = multiprocessing.get_context("spawn")
        with self.assertRaisesRegex(TypeError, "neither copied nor pickled"):
            context.Process(target=print, args=(self.client,)).start()


def serve(report: Any) -> None:
    """A worker: serves its memory until it is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with Engine() as engine:
        region = engine.register(bytearray(4096))
        engine.start_server()
        report.send((f"127.0.0.1:{engine.port}", region.address))
        while True:
            time.sleep(60)


class Preforked(unittest.TestCase):
    """A master with an engine forks workers, each with its own, and replaces those that are killed."""

    def test_workers_are_killed_and_replaced_and_the_master_ends(self) -> None:
        context = multiprocessing.get_context("fork")
        master = Engine()
        memory = bytearray(4096)
        region = master.register(memory)
        master.start_server()
        workers: Dict[Any, Tuple[str, int]] = {}

        def start() -> Any:
            receiver, sender = context.Pipe(False)
            worker = context.Process(target=serve, args=(sender,), daemon=True)
            worker.start()
            self.assertTrue(receiver.poll(30), "the worker does not serve")
            workers[worker] = receiver.recv()
            return worker

        for _ in range(3):
            start()
        self.assertEqual(len(set(workers.values())), 3)
        for turn in range(3):
            for session, address in workers.values():
                transfer(session, address, turn)
            victim = next(iter(workers))
            victim.kill()
            victim.join(10)
            del workers[victim]
            start()
            transfer(f"127.0.0.1:{master.port}", region.address, turn)
        begun = time.monotonic()
        master.close()
        self.assertLess(time.monotonic() - begun, 10)
        for session, address in workers.values():
            transfer(session, address, 9)  # they live on without the master's engine
        for worker in workers:
            worker.terminate()
            worker.join(10)
            self.assertEqual(worker.exitcode, 0)


if __name__ == "__main__":
    unittest.main()
