"""The control socket: whoever may open it reads one JSON object, the state as it is now, and then the end.

Who first writes a line with a command reads what came of that instead. Nothing has to be written: the state is told to
whoever says nothing for a moment, or that it will say nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

Report = dict[str, object]
Command = Callable[[], Awaitable[Report]]

_MOMENT: Final = 0.05
_LONGEST: Final = 64


@contextlib.asynccontextmanager
async def serve(
    path: Path, report: Callable[[], Report], commands: Mapping[str, Command] | None = None
) -> AsyncIterator[None]:
    """Answer each connection to the Unix socket `path` (0660) with `report()`, for as long as the block runs."""
    path.parent.mkdir(parents=True, exist_ok=True)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            word = await _word(reader)
            writer.write(json.dumps(await _carry_out(word) if word else report()).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _carry_out(word: str) -> Report:
        command = (commands or {}).get(word)
        known = ", ".join(sorted(commands or {})) or "none"
        return await command() if command else {"error": f"that is no command here; known: {known}"}

    path.unlink(missing_ok=True)
    before = os.umask(0o117)
    try:
        server = await asyncio.start_unix_server(answer, path, limit=_LONGEST)
    finally:
        os.umask(before)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def _word(reader: asyncio.StreamReader) -> str:
    """Return the command that was written, "" if none was.

    Twice for a moment: where the loop was busy for all of the first, the second finds at once what came meanwhile.
    """
    for _ in range(2):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MOMENT):
                try:
                    return (await reader.readline()).decode("ascii", "replace").strip()
                except ValueError:  # a line that has no end
                    return "?"
    return ""
