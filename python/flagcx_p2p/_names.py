"""Calls about names and connections for asyncio: they wait in a thread of the loop's executor."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from ._asyncio import settled

if TYPE_CHECKING:
    from ._native import Connection, Engine
    from ._types import Peer


def connect_async(self: Engine, session: str) -> Coroutine[Any, Any, Connection]:
    """``await engine.connect_async(session)``: as :meth:`Engine.connect`, for asyncio.

    A task that is cancelled goes on at once. The connect ends by its own deadline then; a later call finds its connection.
    """
    return _connect(self, session)


def publish_async(self: Engine, name: str) -> Coroutine[Any, Any, None]:
    """``await engine.publish_async(name)``: as :meth:`Engine.publish`, for asyncio.

    A task that is cancelled waits until the directory has answered, and the name is withdrawn.
    """
    return _publish(self, name)


def peers_async(self: Engine, prefix: str = "") -> Coroutine[Any, Any, list[Peer]]:
    """``await engine.peers_async(prefix)``: as :meth:`Engine.peers`, for asyncio."""
    return _peers(self, prefix)


async def _connect(engine: Engine, session: str) -> Connection:
    return await asyncio.get_running_loop().run_in_executor(None, engine.connect, session)


async def _publish(engine: Engine, name: str) -> None:
    loop = asyncio.get_running_loop()
    started = loop.run_in_executor(None, engine.publish, name)
    cancelled = await settled(started)
    if cancelled is None:
        return started.result()
    if started.exception() is None:
        await loop.run_in_executor(None, engine.withdraw, name)
    raise cancelled


async def _peers(engine: Engine, prefix: str) -> list[Peer]:
    return await asyncio.get_running_loop().run_in_executor(None, engine.peers, prefix)
