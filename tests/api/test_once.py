"""Idempotency-Key: on every POST the same key does it once, and answers the same, whatever happens in between."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from appliance import backup
from appliance.backup import Saved
from appliance.model import Intent
from cloud.provider import Owner
from tests.appliance.fakes import POD, entry

from .conftest import ROOT, TOKEN, Appliance, serving

PODS = f"/v1/cidrs/{POD}"
CIDR: dict[str, Any] = {"cidr": str(POD)}
BODIES: dict[str, Any] = {
    "/v1/cidrs": CIDR,
    "/v1/cidrs/{cidr}/adopt": None,
    "/v1/links": {"name": "sg", "token": TOKEN},
    "/v1/tokens": {"name": "grafana", "scope": "read"},
    "/v1/restore": None,
}
"""What succeeds at each resource that takes a POST; the next test holds the list to the API's document."""


@pytest.fixture
def token(joined: Appliance) -> str:
    return joined.token()


def prepare(appliance: Appliance, path: str) -> None:
    """Make the appliance one at which this POST succeeds."""
    if path.endswith("/adopt"):
        appliance.daemon.request("POST", "/v1/cidrs", CIDR)
        appliance.cloud.real.entries = [entry(POD, "vtb-1", Owner.FOREIGN, "i-other")]
    if path == "/v1/restore":
        backup.save(appliance.state / "nexthop.db", Saved(1.0, (Intent(POD, "hk"),), frozenset()))
        (appliance.state / "nexthop.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)


def test_every_post_of_the_document_is_tried_here() -> None:
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    posts = {path: item["post"] for path, item in document["paths"].items() if "post" in item}
    assert posts.keys() == BODIES.keys()
    for path, operation in posts.items():
        assert "Idempotency-Key" in [each["name"] for each in operation["parameters"]], path
        assert {"409", "422"} <= operation["responses"].keys(), path


@pytest.mark.parametrize("path", BODIES)
def test_a_post_that_is_sent_again_is_done_once_and_answers_the_same(joined: Appliance, path: str) -> None:
    prepare(joined, path)
    target, sent = path.format(cidr=POD), {"Idempotency-Key": "a-key"}
    first = joined.daemon.request("POST", target, BODIES[path], sent)
    told, did = joined.daemon.get("/v1/history"), list(joined.cloud.real.did)
    again = joined.daemon.request("POST", target, BODIES[path], sent)
    assert again == first
    assert joined.daemon.get("/v1/history") == told
    assert joined.cloud.real.did == did


@pytest.mark.parametrize("path", [path for path, body in BODIES.items() if body is not None])
def test_a_key_that_was_used_for_another_body_is_refused_and_nothing_is_done(
    joined: Appliance, token: str, path: str
) -> None:
    joined.remote("POST", path, token, BODIES[path], Idempotency_Key="a-key")
    before = joined.daemon.get(path)
    other = BODIES[path] | ({"cidr": "10.245.0.0/16"} if path == "/v1/cidrs" else {"name": "other"})
    answer = joined.remote("POST", path, token, other, Idempotency_Key="a-key")
    assert (answer.status, answer.json["code"]) == (422, "idempotency-key-reused")
    assert joined.daemon.get(path) == before


def test_what_happened_in_between_changes_nothing(joined: Appliance, token: str) -> None:
    first = joined.remote("POST", "/v1/cidrs", token, CIDR, Idempotency_Key="a-key")
    joined.remote("DELETE", PODS, token)
    again = joined.remote("POST", "/v1/cidrs", token, CIDR, Idempotency_Key="a-key")
    assert (again.status, again.json) == (first.status, first.json)
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["idempotency-replayed"] == "true"
    assert joined.remote("GET", PODS, token).json["phase"] == "leaving"  # nothing was done twice
    assert joined.remote("POST", "/v1/cidrs", token, CIDR, Idempotency_Key="another").status == 201


def test_a_key_is_its_callers_own_and_refusals_are_kept_too(joined: Appliance, token: str) -> None:
    bad = {"cidr": "172.18.0.0/16"}
    first = joined.remote("POST", "/v1/cidrs", token, bad, Idempotency_Key="k")
    again = joined.remote("POST", "/v1/cidrs", token, bad, Idempotency_Key="k")
    assert first.status == again.status == 422
    assert first.json == again.json
    assert again.headers["content-type"] == "application/problem+json"
    other = joined.token("write", "other")
    assert joined.remote("POST", "/v1/cidrs", other, CIDR, Idempotency_Key="k").status == 201


@pytest.mark.parametrize("key", ["", "a b", "x" * 201, "\xe9"])
def test_a_key_that_is_none_is_refused(joined: Appliance, token: str, key: str) -> None:
    answer = joined.remote("POST", "/v1/cidrs", token, CIDR, Idempotency_Key=key)
    assert answer.status == 422
    assert joined.cidrs() == []


def test_an_answer_outlives_the_daemon_and_no_secret_lies_in_the_database(tmp_path: Path) -> None:
    asked, sent = {"name": "grafana", "scope": "read"}, {"Idempotency-Key": "5f0c6c1e-9d0f-4f0b-8a55-1d9d5b2f7a10"}
    with serving(tmp_path) as one:
        first = one.daemon.request("POST", "/v1/tokens", asked, sent)
    with serving(tmp_path) as other:
        assert other.daemon.request("POST", "/v1/tokens", asked, sent) == first
        assert other.remote("GET", "/v1/session", first[1]["token"]).status == 200
    everything = (tmp_path / "state" / "nexthop.db").read_bytes()
    assert b"grafana" in everything
    assert first[1]["token"].removeprefix("nht_").encode() not in everything
    assert sent["Idempotency-Key"].encode() not in everything
