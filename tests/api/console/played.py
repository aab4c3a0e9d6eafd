"""An appliance played for the console: the page's own files, and an API whose answers a test sets by hand.

It shows states that a real lab takes long to reach or cannot hold still: nothing joined yet, a daemon that is gone, a
token that may only look. What the real daemon does is tried in test_lab.py.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from api.server import serve
from api.static import router
from tests.api.console import scenes

TOKENS = {"nht_write": "write", "nht_read": "read"}


@dataclass
class Played:
    """What the page is shown; a test changes it at will. `asked`: every request, as "METHOD path"."""

    scene: dict[str, Any] = field(default_factory=scenes.healthy)
    dry: Callable[[dict[str, Any]], tuple[int, dict[str, Any]]] = scenes.plan
    asked: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    refusal: tuple[int, dict[str, Any]] | None = None
    streams: int = 0
    cut: threading.Event = field(default_factory=threading.Event)
    _server: _Server | None = None

    @property
    def url(self) -> str:
        assert self._server
        return f"http://127.0.0.1:{self._server.port}"

    def event(self, what: str, cidr: str = "", detail: str = "", who: str = "root") -> None:
        """Let something happen: the stream tells it."""
        number = len(self.scene["events"]) + 1
        said = {"id": number, "at": time.time(), "who": who, "what": what, "cidr": cidr, "detail": detail}
        self.scene["events"].append(said)

    def __enter__(self) -> Self:
        self._server = _Server(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Answer nobody any more."""
        if self._server:
            self.cut.set()
            self._server.stop()
            self._server = None

    def again(self, port: int) -> None:
        """Answer again, where it was before."""
        self.cut.clear()
        self._server = _Server(self, port)

    @property
    def port(self) -> int:
        assert self._server
        return self._server.port


class _Server:
    """The application in a thread with an event loop of its own."""

    def __init__(self, played: Played, port: int = 0) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
        listener.setblocking(False)
        self.port: int = listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        ready = threading.Event()
        work = serve(app(played), listener, self._stop, ready.set)
        self._thread = threading.Thread(target=self._turn, args=(work,))
        self._thread.start()
        assert ready.wait(20)

    def _turn(self, work: Coroutine[Any, Any, None]) -> None:
        self._loop.run_until_complete(work)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def app(played: Played) -> FastAPI:
    """Return the application; a scene's value that is None answers 503."""
    made = FastAPI()

    @made.middleware("http")
    async def gate(request: Request, call_next: Any) -> Response:
        path = request.url.path
        if path.startswith("/v1/"):
            if not request.query_params.get("dry_run"):
                played.asked.append(f"{request.method} {path}")
            scope = TOKENS.get(request.headers.get("authorization", "").removeprefix("Bearer "))
            if scope is None:
                return problem(401, "no-token", "A token is needed")
        answer: Response = await call_next(request)
        answer.headers["content-security-policy"] = POLICY
        return answer

    _showing(made, played)
    _changing(made, played)
    made.include_router(router())
    return made


def _showing(made: FastAPI, played: Played) -> None:
    @made.get("/v1/session")
    async def session(request: Request) -> dict[str, str]:
        scope = TOKENS[request.headers["authorization"].removeprefix("Bearer ")]
        return {"scope": scope, "via": "token", "name": scope}

    @made.get("/v1/{name}")
    async def show(name: str, request: Request) -> Response:
        if name == "events" and "text/event-stream" in request.headers.get("accept", ""):
            played.streams += 1
            last = int(request.headers.get("last-event-id", "0"))
            return StreamingResponse(told(played, last), media_type="text/event-stream")
        found = played.scene[name]
        if callable(found):
            found = found()
        if found is None:
            return problem(503, "store-unavailable", "The state is not available")
        return JSONResponse({"events": found, "next": None} if name == "events" else found)


def _changing(made: FastAPI, played: Played) -> None:
    @made.api_route("/v1/{rest:path}", methods=["POST", "PATCH", "DELETE"])
    async def change(rest: str, request: Request) -> Response:
        body = json.loads(await request.body() or "{}")
        played.bodies.append(body)
        played.headers.append(dict(request.headers))
        if request.query_params.get("dry_run"):
            return JSONResponse(
                *reversed(played.dry({"cidr": rest.removeprefix("cidrs/"), "method": request.method, **body}))
            )
        if played.refusal:
            return JSONResponse(*reversed(played.refusal))
        return JSONResponse({})


async def told(played: Played, last: int) -> AsyncIterator[str]:
    """Tell what happened after `last`, and what happens."""
    yield ": here\n\n"
    while not played.cut.is_set():
        for event in played.scene["events"][last:]:
            last += 1
            yield f"id: {event['id']}\nevent: {event['what']}\ndata: {json.dumps(event)}\n\n"
        await asyncio.sleep(0.02)


def problem(status: int, code: str, title: str) -> JSONResponse:
    reason = {"code": code, "text": title, "next_step": "free the disk that holds the state directory"}
    return JSONResponse({"code": code, "title": title, "detail": title, "reasons": [reason]}, status)
