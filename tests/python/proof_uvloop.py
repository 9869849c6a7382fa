"""The suites of asyncio once more, in loops of uvloop.

A proof, because uvloop is installed from PyPI.
"""

import asyncio
import unittest

import uvloop  # type: ignore[import-not-found,import-untyped,unused-ignore]

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())

from test_asyncio import *  # noqa: E402,F403
from test_asyncio_ends import *  # noqa: E402,F403


class Uvloop(unittest.TestCase):
    def test_the_loops_of_these_suites_are_its_loops(self) -> None:
        async def loop() -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

        self.assertIsInstance(asyncio.run(loop()), uvloop.Loop)


if __name__ == "__main__":
    unittest.main()
