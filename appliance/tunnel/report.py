"""The control socket: whoever may open it reads one JSON object, the state as it is now, and then the end.

Who first writes a line with a command reads what came of that instead; a number after it says how many bytes follow
that the command is about. Nothing has to be written: the state is told to whoever says nothing for a moment, or that it
will say nothing.
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
Command = Callable[[bytes], Awaitable[Report]]
"""What came of it. It is given the bytes that followed its name, mostly none."""

_MOMENT: Final = 0.05
_LONGEST: Final = 64
_MOST: Final = 16 * 1024  # bytes that follow a command


@contextlib.asynccontextmanager
async def serve(
    path: Path, report: Callable[[], Report], commands: Mapping[str, Command] | None = None
) -> AsyncIterator[None]:
    """Answer each connection to the Unix socket `path` (0660) with `report()`, for as long as the block runs."""
    path.parent.mkdir(parents=True, exist_ok=True)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            line = await _line(reader)
            writer.write(json.dumps(await _carry_out(line, reader) if line else report()).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _carry_out(line: str, reader: asyncio.StreamReader) -> Report:
        word, _, size = line.partition(" ")
        command = (commands or {}).get(word)
        if command is None:
            known = ", ".join(sorted(commands or {})) or "none"
            return {"error": f"that is no command here; known: {known}"}
        if size and not (size.isdecimal() and int(size) <= _MOST):
            return {"error": f"after a command comes how many bytes follow, at most {_MOST}"}
        try:
            return await command(await reader.readexactly(int(size or 0)))
        except asyncio.IncompleteReadError:
            return {"error": f"fewer than {size} bytes followed"}

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


async def _line(reader: asyncio.StreamReader) -> str:
    """Return the line that was written, "" if none was.

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
