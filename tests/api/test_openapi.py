"""The API's document: complete, true to its snapshot, and never changed in a way that breaks a client.

python -m tests.api.test_openapi        writes the snapshot anew
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from .conftest import ROOT, Appliance, serving

SNAPSHOT = ROOT / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def document(refusing: Appliance) -> dict[str, Any]:
    return dict(refusing.daemon.get("/v1/openapi.json"))


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_the_snapshot_in_the_repository_is_what_the_daemon_says(document: dict[str, Any]) -> None:
    assert text_of(document) == SNAPSHOT.read_text(), "python -m tests.api.test_openapi, and look at the difference"


def test_every_operation_field_and_parameter_has_a_description_and_an_example(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    lacking = []
    for (method, path), operation in operations(document).items():
        if not operation.get("description") or not operation.get("tags"):
            lacking.append(f"{method} {path}")
        lacking += [
            f"{method} {path} {parameter['name']}"
            for parameter in operation.get("parameters", ())
            if not parameter.get("description") or not parameter["schema"].get("examples")
        ]
    for name, schema in document["components"]["schemas"].items():
        if not schema.get("examples"):
            lacking.append(name)
        for field, described in schema.get("properties", {}).items():
            if not described.get("description") or ("examples" not in described and "default" not in described):
                lacking.append(f"{name}.{field}")
    assert not lacking


def test_every_example_is_one(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        whole = {**schema, "components": document["components"]}
        for example in schema["examples"]:
            jsonschema_rs.validate(whole, example)
        assert name


def test_every_error_is_a_problem(document: dict[str, Any]) -> None:
    for (method, path), operation in operations(document).items():
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], f"{method} {path} {status}"
        assert "429" in operation["responses"]
        assert ("401" in operation["responses"]) == (operation.get("security") != []), path


def test_what_breaks_a_client_is_found() -> None:
    old = json.loads(SNAPSHOT.read_text())
    assert breaking(old, old) == []
    new = json.loads(SNAPSHOT.read_text())
    del new["paths"]["/v1/plan"]
    del new["components"]["schemas"]["CidrResource"]["properties"]["etag"]
    new["components"]["schemas"]["NewCidr"]["required"].append("via")
    new["components"]["schemas"]["LinkResource"]["properties"]["name"]["type"] = "integer"
    assert len(breaking(old, new)) == 4


def test_nothing_breaks_a_client_of_the_released_api(document: dict[str, Any]) -> None:
    assert breaking(json.loads(SNAPSHOT.read_text()), document) == []


def breaking(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what a client of `old` would stumble over in `new`: what is gone, of another type, or newly required."""
    found = [f"{method} {path} is gone" for method, path in operations(old).keys() - operations(new).keys()]
    for key in operations(old).keys() & operations(new).keys():
        before, after = operations(old)[key], operations(new)[key]
        known = {parameter["name"] for parameter in before.get("parameters", ())}
        found += [
            f"{key} now needs {parameter['name']}"
            for parameter in after.get("parameters", ())
            if parameter.get("required") and parameter["name"] not in known
        ]
    schemas = new["components"]["schemas"]
    for name, before in old["components"]["schemas"].items():
        after = schemas.get(name, {})
        for field, described in before.get("properties", {}).items():
            now = after.get("properties", {}).get(field)
            if now is None:
                found.append(f"{name}.{field} is gone")
            elif described.get("type") != now.get("type"):
                found.append(f"{name}.{field} is of another type")
        if before.get("additionalProperties") is False:  # what we are sent
            found += [
                f"{name} now needs {field}"
                for field in set(after.get("required", ())) - set(before.get("required", ()))
            ]
    return found


def text_of(document: dict[str, Any]) -> str:
    return json.dumps({**document, "info": {**document["info"], "version": "*"}}, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home, serving(Path(home)) as made:
        fresh = made.daemon.get("/v1/openapi.json")
    broken = breaking(json.loads(SNAPSHOT.read_text()), fresh) if SNAPSHOT.exists() else []
    if broken and "--breaking" not in sys.argv:
        sys.exit("this breaks clients; --breaking if it is meant:\n" + "\n".join(broken))
    SNAPSHOT.write_text(text_of(fresh))
