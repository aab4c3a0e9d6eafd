"""The OpenAPI document: what FastAPI makes of the routers, and what it cannot know.

Errors are problem+json, and never plain JSON. Everything but the health checks takes a bearer token over TLS. Every
field has a description and an example. docs/openapi.json is this document as of the last change of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi.openapi.utils import get_openapi

from api.examples import EXAMPLES
from api.problem import MEDIA_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import FastAPI

_OPEN: Final = ("/livez", "/readyz")
_TEXT: Final = (
    "The REST API of Nexthop, the VPC next-hop appliance. On the machine itself it answers on a Unix socket, whose "
    "mode decides who may use it; over the network by TLS, with a bearer token. Every error is a problem document "
    "(RFC 9457) with a stable `code`; docs/problems.md has a section for each."
)
_TAGS: Final = (
    ("status", "How everything does, and why."),
    ("cidrs", "The networks that the VPC reaches through this machine."),
    ("links", "The tunnels to where they are."),
    ("cloud", "The VPC's route tables."),
    ("history", "Who did what, and what was repaired."),
    ("tokens", "Who may come over the network."),
    ("upkeep", "For when something is lost."),
)


def describe(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return what makes the document of `app`, once."""
    made: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not made:
            made.update(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    description=_TEXT,
                    routes=app.routes,
                    tags=[{"name": name, "description": text} for name, text in _TAGS],
                    license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
                )
            )
            _complete(made)
        return made

    return document


def _complete(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "`nexthop token add NAME` makes one."}
    }
    document["security"] = [{"token": []}]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if path in _OPEN:
                operation["security"] = []
            for status, response in operation["responses"].items():
                _response(status, response)
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        _schema(name, schema, schemas)


def _response(status: str, response: dict[str, Any]) -> None:
    content = response.get("content", {})
    if MEDIA_TYPE in content:
        response["content"] = {MEDIA_TYPE: content.get("application/json", {})}
    if status == "429":
        described = {"description": "After how many seconds to come back.", "schema": {"type": "integer"}}
        response["headers"] = {"Retry-After": described | {"required": True}}
    if status == "401":
        response["headers"] = {
            "WWW-Authenticate": {"description": "Always Bearer.", "schema": {"type": "string"}, "required": True}
        }


def _schema(name: str, schema: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Add the example, field by field, and descriptions that were inherited."""
    example = EXAMPLES.get(name)
    if example is None:
        return
    schema["examples"] = [example]
    inherited = schemas["Change"].get("properties", {}) if name in {"NewCidr", "WholeCidr"} else {}
    for field, described in schema.get("properties", {}).items():
        target = schemas.get(described.get("$ref", "").rpartition("/")[2], {})
        text = inherited.get(field, {}).get("description") or target.get("description")
        if "description" not in described and text:
            described["description"] = text
        if "examples" not in described and isinstance(example, dict) and field in example:
            described["examples"] = [example[field]]
