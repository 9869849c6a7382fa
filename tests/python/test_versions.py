"""Engines of another version than the package's: a played one, and real ones that a relay makes look later."""

import contextlib
import socket
import struct
import threading
import unittest
from collections.abc import Callable

from pair import Pair

import flagcx_p2p

#: The magic number of the first bytes, and a hello of version 3 of implementation 1: rust/core/src/control/wire/hello.rs.
PREAMBLE = 12
HELLO = b"1PXF\x10\0\0\x001PXF\x03\0\x01\0\x01\0\0\0\x10\0\0\0"
#: What the features of an engine begin with: rust/core/src/control/wire/features.rs.
FEATURES = b"fcx-p2p\x01"


class Refused(Pair):
    def test_a_version_that_cannot_work_is_named_with_ours(self) -> None:
        for at, value, named in (
            (12, 5, "version 5 of implementation 1"),
            (12, 2, "version 2 of implementation 1"),
            (14, 2, "version 3 of implementation 2"),
        ):
            changed = bytearray(HELLO)
            changed[at] = value
            with Played(bytes(changed)) as port, self.assertRaises(flagcx_p2p.P2pError) as caught:
                self.client.connect(f"127.0.0.1:{port}")
            self.assertIn(named, str(caught.exception))
            self.assertIn("this engine has version 3 of implementation 1", str(caught.exception))
            self.assertIn(f"127.0.0.1:{port}", str(caught.exception))
        # It is still of use for others.
        self.connection.write(self.local, self.remote.address)
        self.assertEqual(self.target, self.source)


class Later(Pair):
    def test_features_that_are_not_known_are_ignored(self) -> None:
        """The client says that it is of version 7, has all features, and more to say than this version reads."""
        with Relay(self.server.port, of_a_later_version) as relay, flagcx_p2p.Engine() as client:
            region = client.register(self.source)
            connection = client.connect(f"127.0.0.1:{relay.port}")
            self.assertEqual(relay.changed, 1, "what the relay looks for has been sent")
            connection.write(region, self.remote.address)
            self.assertEqual(self.target, self.source)
            # The server has read the features: only then it answers questions for regions that have come later.
            later = bytearray(len(self.source))
            connection.write(region, self.server.register(later).address)
            self.assertEqual(later, self.source)


class Played:
    """A listener that hangs up on the first client, as FlagCX's next version does, and answers the second one's hello."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.play)

    def play(self) -> None:
        with contextlib.suppress(OSError):
            first, _ = self.listener.accept()
            received(first, PREAMBLE + 4)
            first.close()
            second, _ = self.listener.accept()
            received(second, PREAMBLE + len(HELLO))
            second.sendall(self.answer)
            received(second, 1)
            second.close()

    def __enter__(self) -> int:
        self.thread.start()
        port: int = self.listener.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        self.thread.join(30)
        assert not self.thread.is_alive()


class Relay:
    """Passes one connection on to an engine, with what the client says of its features changed."""

    def __init__(self, port: int, change: Callable[[bytearray, int], None]) -> None:
        self.target, self.change, self.changed = port, change, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.threads = [threading.Thread(target=self.pass_on)]

    def pass_on(self) -> None:
        client, _ = self.listener.accept()
        server = socket.create_connection(("127.0.0.1", self.target))
        self.sockets = [client, server]
        back = threading.Thread(target=copy, args=(server, client))
        back.start()
        self.threads.append(back)
        # The preamble, and a frame with the handle: tag, length, content.
        begin = bytearray(received(client, PREAMBLE + 8))
        (length,) = struct.unpack_from("<I", begin, PREAMBLE + 4)
        begin += received(client, length)
        place = begin.find(FEATURES)
        if place >= 0:
            self.change(begin, place)
            self.changed += 1
        server.sendall(begin)
        copy(client, server)

    def __enter__(self) -> "Relay":
        self.threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()
        for end in self.sockets:
            end.close()


def of_a_later_version(handle: bytearray, place: int) -> None:
    """Version 7 with 8 bytes more, all bits above those of this version set, and the checksum that belongs to it."""
    _, length, _, bits = struct.unpack_from("<HHII", handle, place + 8)
    struct.pack_into("<HH", handle, place + 8, 7, length + 8)
    struct.pack_into("<I", handle, place + 16, bits | 0xFFFF0000)
    handle[place + 16 + length : place + 24 + length] = b"whatever"
    checksum = crc32c(bytes(handle[place + 8 : place + 12] + handle[place + 16 : place + 24 + length]))
    struct.pack_into("<I", handle, place + 12, checksum)


def crc32c(content: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def received(source: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size and (part := source.recv(size - len(content))):
        content += part
    return content


def copy(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while part := source.recv(1 << 16):
            to.sendall(part)
        to.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    unittest.main()
