"""How an interpreter ends that has engines, in every order: at once, without output, with its own status."""

import sys
import time
import unittest
from typing import Any, Dict, List, Tuple

from pair import Pair
from programs import PAIR, Peer, Program

from flagcx_p2p import ConnectionInfo, Notification

#: Each is the end of a program that has two connected engines, with the status that it ends with.
ENDS: Dict[str, Tuple[str, int]] = {
    "nothing is closed": ("", 0),
    "everything is closed": ("local.close(); client.close(); server.close()", 0),
    "the peer's engine goes first": ("del server, remote; gc.collect()", 0),
    "sys.exit within a with statement": ("with client, server, local: sys.exit(3)", 3),
    "os._exit": ("os._exit(4)", 4),
    "cycles among engines and buffers": (
        "class Buffer(bytearray): pass\n"
        "more = Buffer(4096); more.engines = [client, server]; more.itself = more; more.region = client.register(more)",
        0,
    ),
    "an atexit handler that transfers and closes": (
        "atexit.register(lambda: (connection.write(local, remote.address), client.close()))",
        0,
    ),
    "an atexit handler that creates an engine": ("atexit.register(lambda: setattr(sys, 'engine', Engine()))", 0),
    "an engine that outlives the modules": (
        "import ctypes\n"
        "ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))\n"
        "ctypes.pythonapi.Py_IncRef(ctypes.py_object(vars(flagcx_p2p)))",
        0,
    ),
    "a destructor that uses an engine at the very end": (
        "class Last:\n"
        "    def __init__(self): self.write, self.arguments = connection.write, (local, remote.address)\n"
        "    def __del__(self): self.write(*self.arguments)\n"
        "sys.last = Last()",
        0,
    ),
    "daemon threads that write, register and connect": (
        "def repeat(work):\n"
        "    def run():\n"
        "        while True: work()\n"
        "    threading.Thread(target=run, daemon=True).start()\n"
        "repeat(lambda: connection.write(local, remote.address))\n"
        "repeat(lambda: client.register(bytearray(64)).close())\n"
        "repeat(lambda: client.connect(f'127.0.0.1:{server.port}'))\n"
        "repeat(lambda: connection.start_read([Piece(local, remote.address)]).wait())\n"
        "time.sleep(0.1)",
        0,
    ),
    "daemon threads that send and take notifications": (
        "def repeat(work):\n"
        "    def run():\n"
        "        while True: work()\n"
        "    threading.Thread(target=run, daemon=True).start()\n"
        "for size in (1, 5000): repeat(lambda size=size: (connection.notify(b'n', bytes(size)), time.sleep(0.0001)))\n"
        "for _ in range(2): repeat(server.notifications)\n"
        "time.sleep(0.1)",
        0,
    ),
    "a daemon thread that closes": (
        "for engine in (client, server): threading.Thread(target=engine.close, daemon=True).start()",
        0,
    ),
    "a daemon thread inside a connect to a peer that is silent": (
        "silent = socket.create_server(('127.0.0.1', 0))\n"
        "session = f'127.0.0.1:{silent.getsockname()[1]}'\n"
        "threading.Thread(target=client.connect, args=(session,), daemon=True).start()\n"
        "silent.accept()",
        0,
    ),
    "a thread that still waits": (
        "threading.Thread(target=lambda: (time.sleep(0.2), connection.write(local, remote.address))).start()",
        0,
    ),
}

#: What `late` does in an atexit handler of before the import: it runs when the engines have been closed already.
LATE: Dict[str, str] = {
    "use": (
        "def late():\n"
        "    try: connection.write(local, remote.address)\n"
        "    except P2pError as error: assert 'closed' in str(error), error\n"
        "    else: raise AssertionError('not closed')\n"
    ),
    "another engine that is left open": "def late(): sys.engine = Engine(); sys.engine.register(bytearray(64))\n",
    "a join of a daemon thread that transfers": (
        "def work():\n"
        "    while True: connection.write(local, remote.address)\n"
        "thread = threading.Thread(target=work, daemon=True)\n"
        "thread.start()\n"
        "def late(): thread.join(20); assert not thread.is_alive()\n"
    ),
    "a wait for daemon threads that go on after errors": (
        "def work():\n"
        "    while True:\n"
        "        try: client.stats(); connection.start_write([Piece(local, remote.address)]).wait()\n"
        "        except P2pError: pass\n"
        "for _ in range(3): threading.Thread(target=work, daemon=True).start()\n"
        "def late(): time.sleep(0.3)\n"
    ),
}

#: A daemon thread is in the middle of a WRITE to a peer that is stopped, and the main thread of another one.
STOPPED = """
import sys, threading, time
from flagcx_p2p import Engine, Piece
engine = Engine()
region = engine.register(bytearray(1 << 26))
peer, address = engine.connect(sys.argv[1]), int(sys.argv[2])
peer.write(region, address, size=8)
print("ready", flush=True)
sys.stdin.readline()
threading.Thread(target=peer.write, args=(region, address), daemon=True).start()
threading.Thread(target=peer.start_write([Piece(region, address)]).wait, daemon=True).start()
transfer = peer.start_read([Piece(region, address)])
time.sleep(0.2)
"""


class Exit(unittest.TestCase):
    def test_every_end_is_quick_and_silent(self) -> None:
        programs = {name: Program(PAIR + text, status) for name, (text, status) in ENDS.items()}
        late = "import atexit; atexit.register(lambda: late())"
        programs |= {f"late: {name}": Program(late + PAIR + text) for name, text in LATE.items()}
        for name, program in programs.items():
            with self.subTest(name):
                _, errors = program.end(max(1, program.started + 60 - time.monotonic()))
                self.assertEqual(errors, "")

    def test_ctrl_c_ends_a_program_that_catches_nothing(self) -> None:
        program = Program(PAIR + "print('ready', flush=True)\nwhile True: connection.write(local, remote.address)", -2)
        assert program.process.stdout is not None
        program.process.stdout.readline()
        program.process.send_signal(2)
        _, errors = program.end(20)
        self.assertTrue(errors.endswith("KeyboardInterrupt"), errors)
        self.assertNotIn("ignored", errors)

    def test_a_stopped_peer_does_not_delay_the_exit(self) -> None:
        for path in ("tcp", "auto"):
            with self.subTest(path), Peer(1 << 26) as peer:
                program = Program(STOPPED, arguments=(peer.session, str(peer.address)), FLAGCX_P2P_PATH=path)
                assert program.process.stdout is not None
                program.process.stdout.readline()
                peer.stop()
                begun = time.monotonic()
                _, errors = program.end(20)
                self.assertLess(time.monotonic() - begun, 8)
                self.assertEqual(errors, "")


class NoBytecode(Pair):
    """Bytecode that the native module calls lets go of the interpreter's lock. Before Python 3.14 a daemon thread that asks for the lock again
    while the interpreter ends is ended there, by an unwinding through the native frames, which crashes now and then."""

    def test_what_threads_call_again_and_again_calls_none(self) -> None:
        taken: List[Any] = []

        def receive() -> None:
            end = time.monotonic() + 10
            while not taken and time.monotonic() < end:
                self.server._receive(taken, True)

        calls = {
            "notifications": receive,
            "the state of a connection": self.connection.info,
        }
        self.connection.notify(b"name", b"content")
        self.server.notifications(10)  # what is looked for once is found
        self.connection.info()
        self.connection.notify(b"name", b"content")
        for name, call in calls.items():
            with self.subTest(name):
                self.assertEqual(self.called_from_native_code(call), [])
        self.assertEqual(taken, [Notification(b"name", b"content")])
        self.assertIs(type(taken[0]), Notification)
        self.assertIs(type(self.connection.info()), ConnectionInfo)

    def called_from_native_code(self, call: Any) -> List[str]:
        """The functions in Python that the call has entered, without those of this test."""
        entered: List[str] = []

        def note(frame: Any, event: str, _: Any) -> None:
            if event == "call" and frame.f_code.co_filename != __file__:
                entered.append(frame.f_code.co_name)

        sys.setprofile(note)
        try:
            call()
        finally:
            sys.setprofile(None)
        return entered


if __name__ == "__main__":
    unittest.main()
