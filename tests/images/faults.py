"""Wheels that are no good, each in one way: what an upgrade has to notice, and to take back."""

from __future__ import annotations

import zipfile
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Fault(Enum):
    """What can be wrong with a release's nexthopd: text that is put at the end of api/app.py."""

    DOES_NOT_START = """

def create_app(parts):
    raise RuntimeError("spoiled")
"""
    # systemd is told that it is ready, and finds nothing wrong with it.
    UNWELL = """

_sound = create_app

def create_app(parts):
    app = _sound(parts)
    async def spoiled(scope, receive, send):
        if scope["type"] != "http":
            return await app(scope, receive, send)
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"spoiled"})
    return spoiled
"""


def spoiled(wheel: Path, directory: Path, fault: Fault) -> Path:
    """Return a copy of a wheel whose nexthopd has a fault."""
    directory.mkdir()
    copy = directory / wheel.name
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(copy, "w") as target:
        for item in source.infolist():
            content = source.read(item)
            if item.filename == "api/app.py":
                content += fault.value.encode()
            if not item.filename.endswith("/RECORD"):
                target.writestr(item, content)
            else:
                kept = [line for line in content.decode().splitlines() if not line.startswith("api/app.py,")]
                target.writestr(item, "\n".join([*kept, "api/app.py,,"]) + "\n")
    return copy
