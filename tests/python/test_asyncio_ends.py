"""The ends of what is awaited: of loops, engines, peers, processes, programs."""

import asyncio
import gc
import os
import signal
import unittest

from programs import Program
from test_asyncio import NOT_OVER, WithAPeer, descriptors

from flagcx_p2p import P2pError, Transfer, TransferCancelled, TransferFailed, TransferTimedOut


class Ends(WithAPeer):
    def test_a_loop_that_is_closed_while_transfers_are_in_flight(self) -> None:
        transfer = self.stopped()
        before = len(descriptors())
        for _ in range(20):
            loop = asyncio.new_event_loop()

            async def waits() -> None:
                await transfer

            task = loop.create_task(waits())
            loop.run_until_complete(asyncio.sleep(0.001))
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            loop.close()
        del loop, task
        self.assertFalse(transfer.done())
        self.peer.go_on()
        asyncio.run(self.ended(transfer))
        gc.collect()
        # That of the last loop goes with the next one.
        self.assertLessEqual(len(descriptors()), before + 1)

    @staticmethod
    async def ended(transfer: Transfer) -> None:
        await transfer

    def test_loops_one_after_the_other_leave_no_descriptor(self) -> None:
        self.stopped()
        self.peer.go_on()
        before = len(descriptors())
        for _ in range(30):
            asyncio.run(self.ended(self.start()))
        gc.collect()
        self.assertLessEqual(len(descriptors()), before)

    def test_a_loop_that_is_stopped_goes_on(self) -> None:
        transfer, loop = self.stopped(), asyncio.new_event_loop()
        self.addCleanup(loop.close)
        task = loop.create_task(self.ended(transfer))
        loop.run_until_complete(asyncio.sleep(0.01))
        self.peer.go_on()
        transfer.wait()
        self.assertFalse(task.done())
        loop.run_until_complete(task)

    def test_a_closed_engine_cancels(self) -> None:
        transfer = self.stopped()

        async def main() -> None:
            task = asyncio.ensure_future(transfer)
            call = asyncio.ensure_future(self.connection.write_async(self.region, self.peer.address))
            await asyncio.sleep(0.05)
            await asyncio.get_running_loop().run_in_executor(None, self.engine.close)
            for one in task, call:
                with self.assertRaises(TransferCancelled) as caught:
                    await asyncio.wait_for(one, 5)
                self.assertIn("127.0.0.1", caught.exception.peer)
            with self.assertRaisesRegex(P2pError, "closed"):
                await self.connection.write_async(self.region, self.peer.address)

        asyncio.run(main())

    def test_a_killed_peer_fails(self) -> None:
        transfer = self.stopped()

        async def main() -> None:
            task = asyncio.ensure_future(transfer)
            await asyncio.sleep(0.05)
            self.peer.program.status = -signal.SIGKILL
            self.peer.program.process.kill()
            with self.assertRaises(TransferFailed) as caught:
                await asyncio.wait_for(task, 20)
            error = caught.exception
            self.assertNotIsInstance(error, (TransferCancelled, TransferTimedOut))
            self.assertEqual((error.id, error.piece), (transfer.id, 0))
            self.assertGreater(error.status, 0)
            self.assertTrue(error.status_name)
            self.assertEqual(error.peer, self.peer.session)

        asyncio.run(main())


_AWAITED = """
import asyncio, os, signal, sys, threading, time
os.environ["FLAGCX_P2P_PATH"] = "tcp"
sys.path.insert(0, os.getcwd())
from programs import Peer
import flagcx_p2p._asyncio
from flagcx_p2p import Engine, P2pError, Piece
peer = Peer(1 << 20)
engine = Engine()
memory = bytearray(1 << 20)
region = engine.register(memory)
connection = engine.connect(peer.session)
peer.stop()
transfer = connection.start_write([Piece(region, peer.address)])
async def waits():
    await transfer
"""


class Programs(unittest.TestCase):
    def setUp(self) -> None:
        if os.environ["FLAGCX_P2P_FABRIC"] != "software":
            self.skipTest(NOT_OVER)

    def program(self, text: str, status: int = 0) -> "tuple[str, str]":
        # Newer versions warn of every fork.
        return Program(_AWAITED + text, status, PYTHONWARNINGS="ignore").end(30)

    def test_ctrl_c_in_asyncio_run(self) -> None:
        output, errors = self.program(
            """
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    asyncio.run(waits())
except KeyboardInterrupt:
    print("interrupted", transfer.done())
region.close()
memory.append(0)
engine.close()
peer.__exit__()
"""
        )
        self.assertEqual((output, errors), ("interrupted True\n", ""))

    def test_a_fork_while_it_is_awaited(self) -> None:
        output, errors = self.program(
            """
async def main():
    task = asyncio.create_task(waits())
    await asyncio.sleep(0.05)
    child = os.fork()
    if child == 0:
        try:
            next(transfer.__await__())
        except P2pError as error:
            print("child:", "fork" in str(error), flush=True)
        os._exit(7)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), task.done(), flush=True)
    peer.go_on()
    await task
    print("ended")
asyncio.run(main())
peer.__exit__()
"""
        )
        self.assertEqual((output, errors), ("child: True\n7 False\nended\n", ""))

    def test_a_child_has_loops_and_transfers_of_its_own(self) -> None:
        output, errors = self.program(
            """
async def main():
    task = asyncio.create_task(waits())
    await asyncio.sleep(0.05)
    peer.go_on()
    await task
asyncio.run(main())
child = os.fork()
if child == 0:
    async def again():
        with Engine() as own:
            region = own.register(bytearray(1 << 20))
            other = own.connect(peer.session)
            await asyncio.gather(*[other.write_async(region, peer.address) for _ in range(10)])
    asyncio.run(again())
    print("child", flush=True)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
peer.__exit__()
"""
        )
        self.assertEqual((output, errors), ("child\n0\n", ""))

    def test_the_end_of_the_interpreter(self) -> None:
        for last in "", "sys.exit(0)", "os.kill(os.getpid(), signal.SIGTERM)":
            with self.subTest(last):
                output, _ = self.program(
                    f"""
threading.Thread(target=asyncio.run, args=(waits(),), daemon=True).start()
loop = asyncio.new_event_loop()
task = loop.create_task(waits())
loop.run_until_complete(asyncio.sleep(0.1))
peer.program.process.kill() if {bool(last)} else peer.go_on()
print("last", flush=True)
{last}
""",
                    -signal.SIGTERM if "SIGTERM" in last else 0,
                )
                self.assertEqual(output, "last\n")


class OtherLoops(WithAPeer):
    size = 1 << 20

    def test_uvloop(self) -> None:
        try:
            import uvloop  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ImportError:
            self.skipTest("not run: uvloop is not installed (pip install uvloop)")
        transfer = self.stopped()

        async def main() -> None:
            with self.assertRaises(TimeoutError):
                await asyncio.wait_for(transfer, 0.1)
            self.peer.go_on()
            await asyncio.gather(*[self.connection.write_async(self.region, self.peer.address) for _ in range(500)])

        before = len(descriptors())
        for _ in range(2):
            uvloop.run(main())
            self.peer.stop()
            transfer = self.start()
        gc.collect()
        self.assertLessEqual(len(descriptors()), before + 1)


if __name__ == "__main__":
    unittest.main()
