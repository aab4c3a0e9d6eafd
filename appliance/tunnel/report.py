"""The control socket: whoever may open it reads one JSON object, the state as it is now, and then the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

Report = dict[str, object]


@contextlib.asynccontextmanager
async def serve(path: Path, report: Callable[[], Report]) -> AsyncIterator[None]:
    """Answer each connection to the Unix socket `path` (0660) with `report()`, for as long as the block runs."""
    path.parent.mkdir(parents=True, exist_ok=True)

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(report()).encode() + b"\n")
            await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)
    before = os.umask(0o117)
    try:
        server = await asyncio.start_unix_server(answer, path)
    finally:
        os.umask(before)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)
