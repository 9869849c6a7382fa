"""Connections that are closed, and what an engine tells of itself."""

import asyncio
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from typing import Any, Dict

from pair import Pair

import flagcx_p2p
from flagcx_p2p import Engine, Piece


class Numbers(Pair):
    def test_one_that_is_out_of_range_is_named(self) -> None:
        huge, pieces = 10**400, [Piece(self.local, self.remote.address)]
        calls: "Dict[str, Any]" = {
            "gpu=": lambda: Engine(gpu=2**40),
            "older_than": lambda: self.client.slow_transfers(huge),
            "timeout": lambda: self.connection.write(self.local, self.remote.address, timeout=huge),
            "timeout ": lambda: self.connection.read_many(pieces, timeout=huge),
            "timeout is": lambda: self.connection.start_write(pieces).wait(huge),
            "timeout is a": lambda: self.connection.prepare("read", pieces).run(timeout=huge),
            "timeout is a number": lambda: self.connection.write_async(self.local, self.remote.address, timeout=huge),
            "timeout is a number of": lambda: self.client.notifications(huge),
            "a timeout": lambda: self.client.notifications(float("nan")),
            "addresses, offsets": lambda: self.connection.write(self.local, 2**64),
        }
        for text, call in calls.items():
            with self.subTest(text), self.assertRaisesRegex(ValueError, text):
                call()

    def test_what_is_no_number_is_a_type_error(self) -> None:
        for call in (
            lambda: Engine(gpu="one"),  # type: ignore[arg-type]
            lambda: self.connection.write(self.local, self.remote.address, timeout="1"),  # type: ignore[call-overload]
            lambda: self.connection.write(self.local, "1"),  # type: ignore[call-overload]
            lambda: self.client.notifications("1"),  # type: ignore[arg-type]
        ):
            self.assertRaises(TypeError, call)

    def test_what_the_conversion_raises_is_raised(self) -> None:
        class Number:
            def __init__(self, error: BaseException) -> None:
                self.error = error

            def __index__(self) -> int:
                raise self.error

        for error in (KeyboardInterrupt(), MemoryError(), ZeroDivisionError()):
            for call in (
                lambda number: self.connection.write(self.local, number),
                lambda number: self.client.register_address(4096, number),
                lambda number: self.client.register(bytearray(1), fd=number),
                lambda number: Engine(gpu=number),
            ):
                self.assertRaises(type(error), call, Number(error))


class RegisteredAgain(Pair):
    """The peer ends its region and registers the memory again, and the next call names its address before that is announced."""

    def test_every_call_that_waits_finds_it(self) -> None:
        address, size = self.remote.address, self.SIZE
        pieces = [Piece(self.local, address, 0, 100), Piece(self.local, address + 100, 100)]
        calls: "Dict[str, Any]" = {
            "write": lambda: self.connection.write(self.local, address),
            "read": lambda: self.connection.read(self.local, address),
            "write_many": lambda: self.connection.write_many(pieces),
            "read_many": lambda: self.connection.read_many(self.local.address, address, size, timeout=20),
            "write_async": lambda: asyncio.run(self.connection.write_async(self.local, address)),
            "read_async": lambda: asyncio.run(self.connection.read_async(self.local, address, timeout=20)),
            "read_many_async": lambda: asyncio.run(self.connection.read_many_async(pieces)),
        }
        for name, call in calls.items():
            for number in range(20):
                with self.subTest(name, number=number):
                    self.again(number, write="write" in name)
                    call()
                    self.assertEqual(self.source, self.target)

    def test_one_that_is_gone_is_refused_as_ever(self) -> None:
        for _ in range(20):
            self.again(0, write=False)
            self.connection.read(self.local, self.remote.address)
            self.remote.close()
            with self.assertRaisesRegex(flagcx_p2p.P2pError, "remote access error|has announced no region|has deregistered"):
                self.connection.read(self.local, self.remote.address, timeout=20)

    def again(self, number: int, write: bool) -> None:
        changed, kept = (self.source, self.target) if write else (self.target, self.source)
        kept[:] = bytes(self.SIZE)
        changed[:] = os.urandom(self.SIZE)
        self.remote.close()
        self.remote = self.server.register(self.target)


class Closing(Pair):
    def test_a_connection_that_is_closed_takes_no_transfers(self) -> None:
        self.assertFalse(self.connection.closed)
        self.connection.write(self.local, self.remote.address)
        prepared = self.connection.prepare("read", [Piece(self.local, self.remote.address)])
        self.connection.close()
        self.connection.close()
        self.assertTrue(self.connection.closed)
        for attempt in (
            lambda: self.connection.write(self.local, self.remote.address),
            lambda: self.connection.start_read([Piece(self.local, self.remote.address)]),
            lambda: self.connection.write_many(self.local.address, self.remote.address, 8),
            lambda: self.connection.notify(b"name"),
            prepared.run,
            prepared.start,
        ):
            with self.assertRaisesRegex(flagcx_p2p.P2pError, "closed|ended|no notification channel"):
                attempt()

    def test_the_next_connect_makes_another_one(self) -> None:
        session, first = f"127.0.0.1:{self.server.port}", self.connection
        self.assertEqual(self.client.session, f"127.0.0.1:{self.client.port}")
        self.assertEqual(self.server.session, session)
        self.assertEqual(first.peer, session)
        self.assertFalse(self.client.connect(session).closed)
        with first as same:
            self.assertIs(same, first)
        self.assertTrue(first.closed)
        with self.client.connect(session) as second:
            second.write(self.local, self.remote.address)
            self.assertEqual(self.target, self.source)

    def test_one_of_several_connections_ends_alone(self) -> None:
        with Engine() as other:
            region = other.register(bytearray(self.SIZE))
            other.start_server()
            connection = self.client.connect(other.session)
            self.connection.close()
            connection.write(self.local, region.address)
            self.assertFalse(connection.closed)

    def test_its_transfers_end_as_cancelled(self) -> None:
        transfers = [self.connection.start_write([Piece(self.local, self.remote.address)]) for _ in range(50)]
        self.connection.close()
        for transfer in transfers:
            try:
                transfer.wait(10)
            except flagcx_p2p.TransferCancelled as error:
                self.assertEqual((error.id, error.peer), (transfer.id, self.connection.peer))
                self.assertIn("cancelled", str(error))
        self.local.close()
        self.source.append(0)

    def test_a_peer_that_closes_is_noticed(self) -> None:
        self.server.close()
        deadline = time.monotonic() + 10
        while not self.connection.closed:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)

    def test_the_engines_end_closes_all(self) -> None:
        with Engine() as engine:
            self.assertFalse(engine.closed)
            connection = engine.connect(self.server.session)
            region = engine.register(bytearray(8))
            self.assertIn(str(engine.port), repr(engine))
        self.assertTrue(engine.closed and connection.closed and region.closed)
        self.assertIn("closed", repr(engine))
        for attempt in (engine.stats, engine.snapshot, connection.info, lambda: connection.write(region, 0)):
            with self.assertRaisesRegex(flagcx_p2p.P2pError, "the engine is closed"):
                attempt()

    def test_with_statements_end_what_an_exception_leaves(self) -> None:
        with self.assertRaises(KeyError), Engine() as engine, engine.register(bytearray(8)) as region:
            with engine.connect(self.server.session) as connection:
                raise KeyError
        self.assertTrue(engine.closed and region.closed and connection.closed)


class Settings(unittest.TestCase):
    def test_they_go_before_the_environment(self) -> None:
        for lanes in (1, 3):
            settings = {"FLAGCX_P2P_QPS_PER_CONN": str(lanes)}
            with Engine(settings=settings) as client, Engine(settings=settings) as server:
                server.start_server()
                self.assertEqual(client.connect(server.session).info().lanes, lanes)

    def test_those_that_are_wrong_are_refused(self) -> None:
        with self.assertRaisesRegex(flagcx_p2p.P2pError, "FLAGCX_P2P_ALLOW"):
            Engine(settings={"FLAGCX_P2P_ALLOW": "nonsense/99"})
        with self.assertRaises(TypeError):
            Engine(settings={"FLAGCX_P2P_PATH": 7})  # type: ignore[dict-item]


    def test_those_that_would_do_nothing_are_refused(self) -> None:
        for name, text in {
            "FLAGCX_P2P_PTH": "FLAGCX_P2P_PTH is not a variable.*did you mean FLAGCX_P2P_PATH",
            "BIND": "BIND is not a variable.*flagcx-p2p config",
            "FLAGCX_DEBUG": "environment",
            "FLAGCX_IB_MERGE_VFS": "no effect: ports are never merged",
        }.items():
            with self.subTest(name), self.assertRaisesRegex(ValueError, text):
                Engine(settings={name: "1"})

    def test_those_of_devices_that_are_open_are_refused(self) -> None:
        Engine().close()
        fabric = os.environ["FLAGCX_P2P_FABRIC"]
        Engine(settings={"FLAGCX_P2P_FABRIC": fabric}).close()
        for name, text in ("FLAGCX_P2P_PATH", "shared"), ("FLAGCX_P2P_SOFTWARE_DEVICES", "3"):
            with self.subTest(name), self.assertRaisesRegex(flagcx_p2p.P2pError, f"^{name}={text} has no effect any more.*with {name} unset"):
                Engine(settings={name: text})

    def alone(self, program: str, **environment: str) -> str:
        """What a process of its own prints, without the variables of this one."""
        plain = {key: value for key, value in os.environ.items() if not key.startswith("FLAGCX_")}
        done = subprocess.run(
            [sys.executable, "-c", program], env={**plain, **environment}, capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def test_devices_that_were_asked_about_are_open(self) -> None:
        """Over a stand-in for libibverbs."""
        stand_in = pathlib.Path(__file__).parent.parent / "nullverbs" / "build.sh"
        program = (
            "import flagcx_p2p as p; settings = {'FLAGCX_P2P_FABRIC': 'software', 'FLAGCX_P2P_BIND': '127.0.0.1'}\n"
            "had = p.fabric_info().provider\n"
            "try: p.Engine(settings=settings).close(); print(had, 'opened', p.fabric_info().provider)\n"
            "except p.P2pError as error: print(had, error)"
        )
        # Without a NIC software runs, for whatever reason.
        if not pathlib.Path("/sys/class/infiniband").is_dir():
            self.assertEqual(self.alone(program, FLAGCX_P2P_BIND="127.0.0.1"), "software opened software")
        with tempfile.TemporaryDirectory() as folder:
            built = subprocess.run([stand_in, folder], capture_output=True, text=True, check=False)
            if built.returncode != 0:
                return print(f"\nnot run: with a NIC: {stand_in} needs a C compiler and libibverbs-dev: {built.stderr.strip()[-200:]}")
            verbs = {"FLAGCX_P2P_IBVERBS": f"{folder}/lib/libibverbs.so.1", "FLAGCX_P2P_BIND": "127.0.0.1"}
            self.assertRegex(self.alone(program, **verbs), "^verbs FLAGCX_P2P_FABRIC=software has no effect any more: .*FLAGCX_P2P_FABRIC unset")
            other = program.replace("p.fabric_info().provider\ntry", "p.Engine() and 'verbs'\ntry")
            self.assertIn("verbs FLAGCX_P2P_FABRIC=software has no effect any more", self.alone(other, **verbs))
            first = program.replace("had = p.fabric_info().provider", "had = 'first'")
            self.assertEqual(self.alone(first, **verbs), "first opened software")

    def test_less_protection_than_asked_for_is_refused(self) -> None:
        program = (
            "import flagcx_p2p as p, sys; first = p.Engine()\n"
            "for name, text in (('FLAGCX_P2P_ALLOW', '127.0.0.0/8'), ('FLAGCX_P2P_AUTH_KEY_FILE', sys.executable)):\n"
            "    try: p.Engine(settings={name: text}); print('opened')\n"
            "    except p.P2pError as error: print(error)"
        )
        lines = self.alone(program, FLAGCX_P2P_BIND="127.0.0.1", FLAGCX_P2P_FABRIC="software").splitlines()
        self.assertRegex(lines[0], "^FLAGCX_P2P_ALLOW=127.0.0.0/8 has no effect any more where the software fabric takes bytes: ")
        self.assertIn("FLAGCX_P2P_AUTH_KEY_FILE=", lines[1])

    def test_a_cached_connection_starts_no_thread(self) -> None:
        with Engine() as server, Engine() as client:
            server.start_server()
            first = client.connect(server.session)
            before = self.switches()
            for _ in range(50):
                self.assertEqual(repr(client.connect(server.session)), repr(first))
            self.assertLess(self.switches() - before, 25, "a call that waits for a thread gives its processor up")

    @staticmethod
    def switches() -> int:
        with open("/proc/thread-self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))


class Counts(Pair):
    def ended(self, stats: flagcx_p2p.Stats, direction: str) -> Dict[str, int]:
        """The sums over all paths, of what is done."""
        total = {"transfers": 0, "bytes": 0}
        for path in stats["ended"][direction].values():
            done = path.get("done", {"transfers": 0, "bytes": 0})
            total["transfers"] += done["transfers"]
            total["bytes"] += done["bytes"]
        return total

    def test_stats(self) -> None:
        before = self.client.stats()
        for _ in range(3):
            self.connection.write(self.local, self.remote.address, size=1000)
        self.connection.read_many([Piece(self.local, self.remote.address, 64 * i, 64) for i in range(100)])
        after = self.client.stats()
        for direction, transfers, size in (("write", 3, 3000), ("read", 1, 6400)):
            was, now = self.ended(before, direction), self.ended(after, direction)
            self.assertEqual((now["transfers"] - was["transfers"], now["bytes"] - was["bytes"]), (transfers, size))
        self.assertEqual(after["in_flight"], {"transfers": 0, "bytes": 0})
        self.assertEqual(after["regions"], 2)
        self.assertEqual(after["registered_bytes"], 2 * self.SIZE)
        deadline = time.monotonic() + 10
        while self.client.stats()["connections"] != 2:  # both ends are in this process; the peer's comes in a moment
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual(set(after), set(flagcx_p2p.Stats.__annotations__))

    def test_failures_are_counted(self) -> None:
        def failures() -> int:
            reads = self.client.stats()["ended"]["read"].values()
            return sum(path.get("failed", {"transfers": 0})["transfers"] for path in reads)

        before, deadline = failures(), time.monotonic() + 20
        while failures() == before:
            self.assertLess(time.monotonic(), deadline)
            region = self.server.register(bytearray(64))
            self.connection.read(self.local, region.address, size=64)
            region.close()
            with self.assertRaises(flagcx_p2p.P2pError):
                self.connection.read(self.local, region.address, size=64)

    def test_the_snapshot_is_the_page_of_the_endpoint(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "metrics")
            with Engine(settings={"FLAGCX_P2P_METRICS": f"unix:{path}"}) as engine:
                self.connection.write(self.local, self.remote.address)
                ours = engine.snapshot()
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(path)
                    client.sendall(b"GET /snapshot HTTP/1.1\r\nHost: here\r\n\r\n")
                    answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
        page: Dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
        self.assertEqual(set(ours), set(page))
        for key in ("version", "host", "pid"):
            self.assertEqual(ours[key], page[key])
        names = [{metric["name"] for metric in snapshot["metrics"]} for snapshot in (ours, page)]
        self.assertEqual(names[0], names[1])
        self.assertEqual(ours["version"], flagcx_p2p.version())
        self.assertGreater(ours["uptime_seconds"], 0)
        json.dumps(ours)


if __name__ == "__main__":
    unittest.main()
