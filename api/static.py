"""The console's files: read from the package, and nothing else of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse, RedirectResponse, Response

from api.problem import Problem, Reason

HOME: Final = Path(__file__).parent / "console"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}


def router(home: Path = HOME) -> APIRouter:
    """Return the endpoints; they are no part of the API and so not in its document."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def front() -> Response:
        """Lead to the console."""
        return RedirectResponse("/console/", 307)

    @routes.get("/console/{name:path}")
    async def file(name: str) -> Response:
        """Send one file of the console."""
        path = (home / (name or "index.html")).resolve()
        kind = _TYPES.get(path.suffix)
        if kind is None or not path.is_relative_to(home.resolve()) or not path.is_file():
            reason = Reason("not-found", "the console has no such file", "open /console/")
            raise Problem(404, "not-found", "There is nothing here", reasons=[reason])
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "no-cache"})

    return routes
