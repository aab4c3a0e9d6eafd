"""The API as one ASGI application, made from its parts: no globals, so a test makes its own.

    /v1/cidrs  /v1/links  /v1/traffic  /v1/status  /v1/explain  /v1/history  /v1/events
    /v1/routes  /v1/plan  /v1/doctor  /v1/ram-policy  /v1/strays  /v1/restore  /v1/tokens  /v1/session
    /livez  /readyz  /metrics  /v1/support-bundle  /console/

Routers read and refuse; what may be decided is decided in `appliance`. Every error is problem+json (`api.problem`), and
who may ask at all is decided before any router is asked (`api.access`).
"""

from __future__ import annotations

import logging
from importlib import metadata
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.exceptions import HTTPException

from api import (
    bundle,
    cidrs,
    cloud,
    events,
    explain,
    history,
    links,
    metrics,
    openapi,
    problem,
    static,
    status,
    tables,
    tokens,
    traffic,
    upkeep,
)
from api.access import Access
from appliance.intent import StoreUnavailable
from appliance.kernel.state import KernelError

if TYPE_CHECKING:
    from fastapi import Request, Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from api.parts import Parts

log = logging.getLogger(__name__)

BODY_LIMIT = 64 * 1024


def create_app(parts: Parts) -> FastAPI:
    """Return the application that speaks for `parts`."""
    app = FastAPI(
        title="Nexthop",
        version=version(),
        openapi_url="/v1/openapi.json",
        docs_url=None,  # both load their scripts from a CDN
        redoc_url=None,
        redirect_slashes=False,  # a redirect would hide that the path is wrong
    )
    problem.install(app)
    app.add_exception_handler(StoreUnavailable, _storage)
    app.add_exception_handler(OSError, _storage)
    app.add_exception_handler(KernelError, _kernel)
    app.add_middleware(BodyLimit, limit=BODY_LIMIT)
    app.add_middleware(Access, tokens=parts.tokens, hosts=parts.about.hosts)  # the last one added is the first one met
    every = problem.responses(400, 401, 403, 408, 413, 421, 422, 429, 503)
    for each in (cloud, cidrs, events, explain, history, links, status, tables, tokens, traffic, upkeep):
        app.include_router(each.router(parts), responses=every)
    app.include_router(bundle.router(parts, app), responses=every)
    app.include_router(metrics.router(parts), responses=every)
    app.include_router(status.health(parts), responses=problem.responses(400, 408, 413, 421, 429, 503))
    app.include_router(static.router())
    app.openapi = openapi.describe(app)  # type: ignore[method-assign]
    return app


async def _storage(_request: Request, error: Exception) -> Response:
    """Nothing was changed: the disk that holds the state, or a file of ours, does not do what it should."""
    log.warning("a request failed at the disk: %s", error)
    reason = problem.Reason("store-unavailable", "the state on disk cannot be read or written", _DISK)
    return problem.answer(problem.Problem(503, "store-unavailable", "The state is not available", reasons=[reason]))


async def _kernel(_request: Request, error: Exception) -> Response:
    log.warning("a request failed because the kernel could not be asked: %s", error)
    reason = problem.Reason("kernel", str(error), "try again; see `nexthop status`")
    return problem.answer(problem.Problem(503, "kernel", "The kernel could not be asked", reasons=[reason]))


_DISK = "packets keep flowing; free or mend the disk that holds the state directory, then try again"


def version() -> str:
    """Return the installed version."""
    try:
        return metadata.version("nexthop")
    except metadata.PackageNotFoundError:
        return "0+source"


class BodyLimit:
    """Refuse a body of more than `limit` bytes, by what it announces or, where it announces nothing, as it comes."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if len(announced) > len(str(self._limit)) or int(announced) > self._limit:  # the server checked the digits
            await problem.answer(self._too_large())(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise HTTPException(413)  # the one kind of error that passes through the reading of a body
            return message

        await self._app(scope, counted, send)

    def _too_large(self) -> problem.Problem:
        step = f"send at most {self._limit} bytes"
        text = "the body is too large"
        return problem.Problem(
            413, "too-large", "The request is too large", reasons=[problem.Reason("too-large", text, step)]
        )
