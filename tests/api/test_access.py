"""Who gets in over the network: the whole of it over real TLS, enumerated from the API's own document."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest

from api.transport import Local

from .conftest import Answer, Appliance

UNGUARDED = {"/livez", "/readyz"}


def operations(appliance: Appliance) -> list[tuple[str, str]]:
    paths = appliance.daemon.get("/v1/openapi.json")["paths"]
    return [
        (method.upper(), re.sub(r"\{cidr\}", "10.244.0.0/16", re.sub(r"\{(name|ip)\}", "hk", path)))
        for path, methods in paths.items()
        for method in methods
    ]


def code(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.body.decode()
    return answer.status, answer.json["code"]


def test_every_endpoint_but_the_health_checks_refuses_without_a_token(refusing: Appliance) -> None:
    seen = operations(refusing)
    assert len(seen) > 20
    for method, path in seen:
        answer = refusing.remote(method, path)
        if path in UNGUARDED:
            assert answer.status == 200
        else:
            assert code(answer) in {(401, "token-missing"), (429, "too-many-requests")}, path
            assert answer.status == 429 or answer.headers["www-authenticate"].startswith("Bearer")
    assert refusing.remote("GET", "/v1/openapi.json").status in {401, 429}


def test_what_is_not_there_is_not_told_to_strangers(appliance: Appliance) -> None:
    for path in ("/v1/nothing", "/v1/../v1/status", "//v1/status", "/V1/status", "/livez/", "/console"):
        assert code(appliance.remote("GET", path)) == (401, "token-missing"), path


def test_a_token_to_read_changes_nothing(appliance: Appliance) -> None:
    token = appliance.token("read", "reader")
    before = len(appliance.changes)
    assert appliance.remote("GET", "/v1/status", token).status == 200
    for method, path in operations(appliance):
        if method != "GET" or path.startswith("/v1/tokens"):
            assert code(appliance.remote(method, path, token)) == (403, "scope-insufficient"), path
    assert len(appliance.changes) == before


def test_a_token_to_write_may_do_both_and_is_named_in_the_history(joined: Appliance) -> None:
    token = joined.token("write", "ci")
    assert joined.remote("GET", "/v1/session", token).json == {"scope": "write", "via": "token", "name": "token ci"}
    assert joined.remote("POST", "/v1/cidrs", token, {"cidr": "10.244.0.0/16"}).status == 201
    newest = joined.daemon.get("/v1/history?limit=1")["events"][0]
    assert (newest["who"], newest["what"]) == ("token ci", "added")


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic bmh0Xw==",
        "Bearer nht_",
        "Bearer nht_" + "A" * 43,
        "Bearer nht_" + "é" * 43,
        "x" * 9999,
    ],
)
def test_no_other_token_opens(appliance: Appliance, given: str) -> None:
    answer = appliance.remote("GET", "/v1/status", Authorization=given)
    status, what = code(answer)
    assert status == 401
    assert what in {"token-missing", "token-unknown"}
    assert given.removeprefix("Bearer ")[:20] not in answer.body.decode() or len(given) < 9


def test_a_token_in_the_address_is_none(appliance: Appliance) -> None:
    token = appliance.token("write")
    assert code(appliance.remote("GET", f"/v1/status?access_token={token}")) == (401, "token-missing")


def test_a_token_that_was_taken_back_opens_nothing(appliance: Appliance) -> None:
    token = appliance.token("write", "gone")
    assert appliance.remote("GET", "/v1/status", token).status == 200
    appliance.daemon.request("DELETE", "/v1/tokens/gone")
    assert code(appliance.remote("GET", "/v1/status", token)) == (401, "token-unknown")


@pytest.mark.parametrize("host", ["evil.example", "nexthop.example.evil.example", "", "localhost.evil", "a" * 300])
def test_a_name_that_is_not_ours_is_refused(refusing: Appliance, host: str) -> None:
    assert code(refusing.remote("GET", "/livez", Host=host)) == (421, "wrong-host")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8443", "nexthop.example", "nexthop.example.", "203.0.113.9:8443", "[::1]:8443"]
)
def test_our_names_and_any_address_are_taken(refusing: Appliance, host: str) -> None:
    assert refusing.remote("GET", "/livez", Host=host).status == 200


def test_a_page_of_another_site_is_refused(appliance: Appliance) -> None:
    token = appliance.token()
    for origin in ("https://evil.example", "null", "http://localhost", "https://localhost:1"):
        answer = appliance.remote("POST", "/v1/restore", token, Host="localhost", Origin=origin)
        assert code(answer) == (403, "foreign-origin"), origin
    ours = appliance.remote("GET", "/v1/status", token, Host="localhost:8443", Origin="https://localhost:8443")
    assert ours.status == 200
    assert "access-control-allow-origin" not in ours.headers


@pytest.mark.parametrize(
    ("host", "origin", "refusal"),
    [
        ("evil.example:8080", None, (421, "wrong-host")),
        ("evil.example:8080", "http://evil.example:8080", (421, "wrong-host")),
        ("localhost:8080", "http://evil.example", (403, "foreign-origin")),
        ("localhost:8080", "http://localhost:3000", (403, "foreign-origin")),
        ("localhost:8080", "null", (403, "foreign-origin")),
    ],
)
def test_a_foreign_page_gets_nowhere_by_a_socket_that_was_forwarded_to_a_port_either(
    refusing: Appliance, host: str, origin: str | None, refusal: tuple[int, str]
) -> None:
    """`ssh -L 8080:/run/nexthop/nexthopd.sock`, with a browser at the other end."""
    assert code(local(refusing, "POST", "/v1/restore", host, origin)) == refusal


def test_the_console_by_a_forwarded_socket_is_no_foreign_page(refusing: Appliance) -> None:
    for host in ("localhost:8080", "127.0.0.1:8080", "[::1]:8080", "localhost"):
        assert local(refusing, "GET", "/v1/status", host, f"http://{host}").status == 200
    assert local(refusing, "GET", "/v1/status", "nexthop.example", None).status == 200


def local(appliance: Appliance, method: str, target: str, host: str, origin: str | None) -> Answer:
    connection = Local(str(appliance.socket)).connect(20)
    with contextlib.closing(connection):
        connection.request(method, target, headers={"Host": host} | ({"Origin": origin} if origin else {}))
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.headers.items()), answer.read())


def test_every_answer_is_dressed(refusing: Appliance) -> None:
    for path in ("/livez", "/v1/status", "/console/nothing"):
        headers = refusing.remote("GET", path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]


def test_above_the_limit_comes_429_with_when_to_come_back(appliance: Appliance) -> None:
    token = appliance.token("read")
    statuses = appliance.many("/v1/session", token, 400)
    assert set(statuses) == {200, 429}
    assert statuses[:150] == [200] * 150


def test_who_guesses_tokens_is_slowed(appliance: Appliance) -> None:
    statuses = appliance.many("/v1/session", "nht_" + "A" * 43, 40)
    assert set(statuses) == {401, 429}
    assert statuses.count(401) < 25
    assert appliance.remote("GET", "/v1/session", appliance.token()).status == 200  # who knows one is not kept out
