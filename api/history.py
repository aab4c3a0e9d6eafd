"""/v1/history: who changed what, and what was repaired, newest first."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic.dataclasses import dataclass

from api.parts import Parts
from api.problem import responses

_LONGEST = 1000


@dataclass(frozen=True, slots=True)
class EventResource:
    """One line. `at`: seconds since the epoch; `cidr` is empty where it is not about one."""

    at: float
    who: str
    what: str
    cidr: str
    detail: str


@dataclass(frozen=True, slots=True)
class History:
    """The body of GET /v1/history."""

    events: tuple[EventResource, ...]


def router(parts: Parts) -> APIRouter:
    """Return the endpoint."""
    routes = APIRouter(tags=["history"])

    @routes.get("/v1/history", responses=responses(422, 503))
    async def history(limit: Annotated[int, Query(ge=1, le=_LONGEST)] = 100) -> History:
        """List the last changes and repairs, newest first."""
        events = parts.store.history(limit)
        return History(tuple(EventResource(e.at, e.who, e.what, e.cidr, e.detail) for e in events))

    return routes
