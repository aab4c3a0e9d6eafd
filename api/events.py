"""/v1/events: the history as it grows, and how everything does, as it changes.

As server-sent events (WHATWG HTML, section 9.2) for who asks for that: a line of history has its row as id, so that
`Last-Event-ID` goes on where a broken connection ended, without a gap; events of kind `state` have none, and the first
comes at once. As JSON for everybody else, a page at a time.

All streams of a moment share one look at the machine. They end when the daemon is told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from api.caller import Asking, Caller
from api.history import EventResource, line
from api.parts import Parts
from api.problem import Problem, Reason, responses
from api.schema import SHOWN
from api.snapshot import gather
from appliance import verdict
from appliance.intent import StoreUnavailable

_PAGE: Final = 1000
_LOOK: Final = 0.5  # seconds
_COMMENT: Final = 15.0  # seconds; what lies between notices that the connection lives, and we that it does not
_MOST: Final = 32  # streams

_LINE: Final = TypeAdapter(EventResource)


@dataclass(frozen=True, slots=True, config=SHOWN)
class EventList:
    """The body of GET /v1/events as JSON."""

    events: tuple[EventResource, ...]
    """The lines of history, newest last."""
    next: int
    """What to send as `after` for the lines that follow; the row of the last line."""


class Looks:
    """One look at the machine for all streams that ask at about the same time."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._at = 0.0
        self._state: dict[str, Any] = {}
        self._lock = asyncio.Lock()

    async def state(self) -> dict[str, Any]:
        """Return the small state that an event of kind `state` shows, at most half a second old."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if not self._state or now - self._at >= _LOOK * 0.9:
                self._state, self._at = await _state(self._parts), now
            return self._state


async def _state(parts: Parts) -> dict[str, Any]:
    whole = await gather(parts)
    said = verdict.judge(whole, verdict.findings(whole))
    return {
        "verdict": {"level": said.level.value, "text": said.text, "next_step": said.next_step},
        "cidrs": {
            str(each.intent.network): {
                "phase": each.intent.phase.value,
                "kernel": each.kernel.state.value,
                "cloud": each.cloud.state.value,
                "path": each.path.state.value,
            }
            for each in whole.cidrs
        },
        "links": {each.name: each.state for each in whole.links},
    }


def router(parts: Parts) -> APIRouter:
    """Return the endpoint."""
    routes = APIRouter(tags=["history"])
    looks, streams = Looks(parts), set[object]()

    described: dict[int | str, dict[str, Any]] = {
        200: {
            "model": EventList,
            "description": "The lines as JSON, or a stream of them.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    }

    @routes.get("/v1/events", response_class=JSONResponse, responses=described | responses(503))
    async def events(
        request: Request,
        asking: Asking,
        limit: Annotated[
            int, Query(ge=1, le=_PAGE, description="How many lines at most; not for a stream.", examples=[20])
        ] = 100,
        after: Annotated[
            int | None,
            Query(
                ge=0, le=2**53, description="Only lines that follow this one; without: the last ones.", examples=[42]
            ),
        ] = None,
        last_event_id: Annotated[
            str | None,
            Header(
                alias="Last-Event-ID",
                max_length=20,
                description="For a stream: go on after this line.",
                examples=["42"],
            ),
        ] = None,
    ) -> Response:
        """Show the history, newest last; or, for `Accept: text/event-stream`, follow it live."""
        if "text/event-stream" not in request.headers.get("accept", ""):
            return JSONResponse(_page(parts, after, limit))
        if len(streams) >= _MOST:
            step = "close another one, and try again"
            reason = Reason("too-many-streams", f"there are {_MOST} event streams already", step)
            raise Problem(429, "too-many-streams", "Too many streams", reasons=[reason], headers={"Retry-After": "15"})
        begin = _begin(parts, last_event_id, after)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        lines = _stream(parts, asking, looks, begin, streams)
        return StreamingResponse(lines, media_type="text/event-stream", headers=headers)

    return routes


def _page(parts: Parts, after: int | None, limit: int) -> dict[str, Any]:
    found = tuple(reversed(parts.store.history(limit))) if after is None else parts.store.events(after, limit)
    following = found[-1].row if found else after or 0
    return {"events": [_LINE.dump_python(line(event)) for event in found], "next": following}


def _begin(parts: Parts, last: str | None, after: int | None) -> int:
    """Return the row to go on after; a line that is not there yet, of another database, is taken for the last one."""
    newest = parts.store.last_row()
    if last is not None and last.isascii() and last.isdecimal():
        return min(int(last), newest)
    return newest if after is None else min(after, newest)


async def _stream(parts: Parts, asking: Caller, looks: Looks, row: int, streams: set[object]) -> AsyncIterator[bytes]:
    me, said, quiet = object(), dict[str, Any](), 0.0
    streams.add(me)
    try:
        yield b"retry: 2000\n\n"
        while not parts.stop.is_set() and (asking.token is None or parts.tokens.good(asking.token)):
            texts = []
            with contextlib.suppress(StoreUnavailable):  # it is told in the state
                for event in parts.store.events(row, _PAGE):
                    row = event.row
                    texts.append(_event(event.what, _LINE.dump_python(line(event)), row))
            state = await looks.state()
            if state != said:
                said = state
                texts.append(_event("state", state))
            quiet = 0.0 if texts else quiet + _LOOK
            if quiet >= _COMMENT:
                texts, quiet = [b": still here\n\n"], 0.0
            if texts:
                yield b"".join(texts)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await parts.stop.wait()
    finally:
        streams.discard(me)


def _event(kind: str, data: Any, row: int | None = None) -> bytes:
    """Return one event. JSON has no line break of its own, and a kind is a word or two."""
    number = "" if row is None else f"id: {row}\n"
    name = "".join(letter for letter in kind if letter.isprintable())
    return f"{number}event: {name}\ndata: {json.dumps(data)}\n\n".encode()
