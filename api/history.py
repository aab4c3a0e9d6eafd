"""/v1/history: who changed what, and what was repaired, newest first."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic.dataclasses import dataclass

from api.parts import Parts
from api.problem import responses
from api.schema import SHOWN
from appliance.records import Event

_LONGEST = 1000


@dataclass(frozen=True, slots=True, config=SHOWN)
class EventResource:
    """One line of the history."""

    id: int
    """Grows from line to line; what `after`, `Last-Event-ID` and `next` count in."""
    at: float
    """When it was, in seconds since the epoch."""
    who: str
    """Who did it: `token NAME`, `uid N` on this machine, or a part of the appliance."""
    what: str
    """What was done, in a word or two, such as `added`."""
    cidr: str
    """The CIDR that it is about; empty where it is about none."""
    detail: str
    """The rest, for people."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class History:
    """The body of GET /v1/history."""

    events: tuple[EventResource, ...]
    """The lines, newest first."""


def line(event: Event) -> EventResource:
    """Return a line as the API shows it."""
    return EventResource(event.row, event.at, event.who, event.what, event.cidr, event.detail)


def router(parts: Parts) -> APIRouter:
    """Return the endpoint."""
    routes = APIRouter(tags=["history"])

    @routes.get("/v1/history", responses=responses(422, 503))
    async def history(
        limit: Annotated[int, Query(ge=1, le=_LONGEST, description="How many lines at most.", examples=[20])] = 100,
    ) -> History:
        """List the last changes and repairs, newest first."""
        return History(tuple(line(event) for event in parts.store.history(limit)))

    return routes
