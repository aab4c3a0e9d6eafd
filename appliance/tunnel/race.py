"""Waiting for whichever comes first, hanging up, and noticing that the other end is gone without having hung up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 20), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 4))
"""Seconds of silence before the first probe, between probes, and how many may go unanswered (tcp(7))."""


async def first(*runners: Coroutine[Any, Any, T]) -> T:
    """Return what the first one returns; the others are cancelled. None of them may raise."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(runner) for runner in runners]
        done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
    return done.pop().result()


def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close at once, without the farewell of TLS, which a peer that is gone would let us wait for."""
    # Python 3.11's TLS transport stumbles over an abort that comes after its end.
    with contextlib.suppress(AttributeError):
        writer.transport.abort()


def keep_alive(sock: socket.socket) -> None:
    """Have a control connection, on which nothing is said for hours, end when its way is gone; and keep NATs awake."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
