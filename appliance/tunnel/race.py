"""Waiting for whichever comes first."""

from __future__ import annotations

import asyncio
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
