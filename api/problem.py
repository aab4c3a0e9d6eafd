"""Every error leaves as RFC 9457 problem+json with a stable code: bad input, unknown paths and our own mistakes too.

`type` is ``urn:nexthop:problem:CODE``; `reasons` says each thing that is wrong, with its own code and the next step.
What a client sent is never repeated except where a CIDR or a name helps, because a body may hold a join token; and no
client ever sees a stack trace.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic.dataclasses import dataclass
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from api.schema import SHOWN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI, Request

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

_OBJECT: Final = "send a JSON object with content-type application/json"
_NO_OBJECT: Final = ("dataclass_type", "model_type", "model_attributes_type", "dict_type")

# What HTTP itself refuses: code, title, what is wrong and what to do. A router gives its own.
_HTTP: Final = {
    400: ("bad-request", "The request cannot be read", "the body cannot be read as JSON in UTF-8", "mend the body"),
    404: ("not-found", "There is nothing here", "nothing is at this path", "see which there are: /v1/openapi.json"),
    405: (
        "method-not-allowed",
        "This resource does not take that method",
        "this resource does not take that method",
        "use one that the header Allow names",
    ),
    413: ("too-large", "The request is too large", "the body is too large", "send less: no resource takes much"),
    415: ("unsupported-media-type", "The body has to be JSON", "the body has to be JSON", _OBJECT),
}


@dataclass(frozen=True, slots=True, config=SHOWN)
class Reason:
    """One thing that is wrong."""

    code: str
    """A stable name for machines."""
    text: str
    """What is wrong, for people."""
    next_step: str = ""
    """What to do about it; empty where the text says it."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class ProblemDocument:
    """The body of every error (RFC 9457, section 3.1, and `code` and `reasons` of ours)."""

    type: str
    """`urn:nexthop:problem:` and the code; docs/problems.md has a section for each."""
    title: str
    """What kind of problem it is, for people; the same each time."""
    status: int
    """The HTTP status."""
    detail: str
    """What is the matter this time, for people."""
    code: str
    """A stable name for machines."""
    reasons: tuple[Reason, ...] = ()
    """Each thing that is wrong, with its own code and next step."""


class Problem(Exception):
    """Refuse the request: raised by routers, answered as problem+json. `headers`: to be sent with it."""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str = "",
        reasons: Sequence[Reason] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(title)
        self.headers = dict(headers or {})
        self.document = ProblemDocument(
            type=f"urn:nexthop:problem:{code}",
            title=title,
            status=status,
            detail=detail or "; ".join(reason.text for reason in reasons) or title,
            code=code,
            reasons=tuple(reasons),
        )


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of an endpoint to the OpenAPI document."""
    return {
        status: {"model": ProblemDocument, "content": {MEDIA_TYPE: {}}, **_NAMED.get(status, {})} for status in statuses
    }


# As RFC 9110 names them; Python does so from 3.13 on.
_NAMED: Final[Mapping[int, Mapping[str, str]]] = {
    413: {"description": "Content Too Large"},
    422: {"description": "Unprocessable Content"},
}


def install(app: FastAPI) -> None:
    """Answer every exception of `app` with problem+json."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _internal)


def body(problem: Problem) -> bytes:
    """Return the JSON of `problem`."""
    document = problem.document
    content = {
        "type": document.type,
        "title": document.title,
        "status": document.status,
        "detail": document.detail,
        "code": document.code,
        "reasons": [{"code": r.code, "text": r.text, "next_step": r.next_step} for r in document.reasons],
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def answer(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response for `problem`."""
    return Response(body(problem), problem.document.status, {**problem.headers, **(headers or {})}, MEDIA_TYPE)


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101  (starlette calls us for nothing else)
    return answer(error)


async def _invalid(_request: Request, error: Exception) -> Response:
    """Say which field is wrong and how, never what was in it."""
    assert isinstance(error, RequestValidationError)  # noqa: S101
    reasons = [_field(item) for item in error.errors()]
    return answer(Problem(422, "invalid-request", "The request is not as this resource takes it", reasons=reasons))


def _field(item: Mapping[str, Any]) -> Reason:
    if item["type"] == "json_invalid":
        return Reason("json", "the body is not JSON", _OBJECT)
    where = ".".join(str(part) for part in item["loc"][1:])[:64] or "body"
    if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return Reason(
            "unknown-field", f"{where!r} is not a field of this resource", "leave it out, or mend its spelling"
        )
    if item["type"] == "missing":
        if where == "body":
            return Reason("missing", "there is no body", _OBJECT)
        return Reason("missing", f"{where!r} is missing", f"send {where!r} as well")
    if where == "body" and item["type"] in _NO_OBJECT:
        return Reason("json", "the body is no JSON object, or does not say that it is one", _OBJECT)
    return Reason("invalid", f"{where!r}: {item['msg']}", "")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    refused = ("http", "The request was refused", f"HTTP refuses it with {error.status_code}", "mend the client")
    code, title, text, step = _HTTP.get(error.status_code, refused)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
    return answer(Problem(error.status_code, code, title, reasons=[Reason(code, text, step)]), headers)


def _methods(request: Request) -> list[str]:
    """Return what a path takes, all its routes together; the router knows only the first that it met."""
    found = {
        method
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
    return sorted(found)


async def _internal(_request: Request, error: Exception) -> Response:
    log.error("a request failed by our own mistake: %s", type(error).__name__)
    step = "look into nexthopd's log, where the mistake is, and report it"
    return answer(
        Problem(500, "internal", "Nexthop made a mistake", reasons=[Reason("internal", "a mistake of ours", step)])
    )
