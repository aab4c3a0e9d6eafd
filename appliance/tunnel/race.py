"""Waiting for whichever comes first, and hanging up: two things that asyncio makes easy to get wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


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
