"""A server inside a test, of which nothing is left afterwards: not even a connection that came as the test ended.

`asyncio.start_server` forgets what it takes at the last moment: the socket is collected later, and its warning fails
whatever test is running then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from socket import AF_UNIX, create_server, socket
from typing import Any


@contextlib.asynccontextmanager
async def listening(
    converse: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], path: Path | None = None
) -> AsyncIterator[Any]:
    """Hold `converse` with whoever connects to the address given, or to the Unix socket `path`, until the block ends.

    A conversation that returns leaves its connection open.
    """
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()
    taken: list[socket] = []

    async def hold(sock: socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            await converse(reader, writer)
            await asyncio.Event().wait()
        finally:
            writer.transport.abort()

    async def accept() -> None:
        while await arrived.wait():
            arrived.clear()
            with contextlib.suppress(BlockingIOError):
                taken.append(listener.accept()[0])
                tasks.append(group.create_task(hold(taken[-1])))

    with create_server(("127.0.0.1", 0)) if path is None else create_server(str(path), family=AF_UNIX) as listener:
        listener.setblocking(False)
        loop.add_reader(listener, arrived.set)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(accept())]
                try:
                    yield listener.getsockname()
                finally:
                    for task in tasks:
                        task.cancel()
        finally:
            loop.remove_reader(listener)
            for sock in taken:  # also one whose conversation had not begun
                sock.close()
            if path is not None:
                path.unlink()
