"""Every error is problem+json, tells nothing that was secret, and changes nothing."""

from __future__ import annotations

import http.client
import json
import logging
import socket
from typing import Any

import pytest

from api.app import BODY_LIMIT

from .conftest import TOKEN, Appliance


def raw(
    appliance: Appliance, method: str, target: str, body: bytes = b"", **headers: str
) -> tuple[int, str, dict[str, Any]]:
    """Send exactly this; return the status, the content type and the document."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(10)
    connection.sock.connect(str(appliance.socket))
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, target, body or None, named)
        answer = connection.getresponse()
        return answer.status, answer.headers["content-type"], json.loads(answer.read())
    finally:
        connection.close()


JSON = {"content_type": "application/json"}

BAD = [
    ("GET", "/nowhere", b"", {}, 404, "not-found"),
    ("GET", "/v1/nothing", b"", {}, 404, "not-found"),
    ("GET", "/v1/status/", b"", {}, 404, "not-found"),
    ("GET", "/docs", b"", {}, 404, "not-found"),
    ("GET", "/v1/../../etc/passwd", b"", {}, 404, "not-found"),
    ("PUT", "/v1/cidrs", b"{}", JSON, 405, "method-not-allowed"),
    ("POST", "/v1/status", b"{}", JSON, 405, "method-not-allowed"),
    ("BREW", "/v1/status", b"", {}, 405, "method-not-allowed"),
    ("POST", "/v1/cidrs", b"", {}, 422, "invalid-request"),
    ("POST", "/v1/cidrs", b"{", JSON, 422, "invalid-request"),
    ("POST", "/v1/cidrs", b'"\xff"', JSON, 400, "bad-request"),
    ("POST", "/v1/cidrs", b"[]", JSON, 422, "invalid-request"),
    ("POST", "/v1/cidrs", b"null", JSON, 422, "invalid-request"),
    ("POST", "/v1/cidrs", b"NaN", JSON, 422, "invalid-request"),
    ("POST", "/v1/cidrs", b"[" * 60000, JSON, 400, "bad-request"),
    ("POST", "/v1/cidrs", b"[" * 20000 + b"]" * 20000, JSON, 400, "bad-request"),
    ("POST", "/v1/cidrs", b'{"cidr": "10.244.0.0/16", "hold_down": ' + b"9" * 5000 + b"}", JSON, 400, "bad-request"),
    ("POST", "/v1/cidrs", b'{"cidr": "10.244.0.0/16", "hold_down": 1e999}', JSON, 422, "invalid-request"),
    ("POST", "/v1/cidrs", b"{}", JSON, 422, "invalid-request"),
    ("POST", "/v1/cidrs", b'{"cidr": "10.244.0.0/16"}', {}, 422, "invalid-request"),  # not said to be JSON
    ("POST", "/v1/cidrs", b'{"cidr": 5}', JSON, 422, "invalid-request"),
    ("POST", "/v1/cidrs", b'{"cidr": "\\ud800"}', JSON, 422, "invalid-request"),
    ("POST", "/v1/cidrs", b'{"cidr": "\\u0000"}', JSON, 422, "bad-cidr"),
    ("POST", "/v1/cidrs", b'{"cidr": "10.244.0.0/16", "snat": "yes"}', JSON, 422, "invalid-request"),
    ("POST", "/v1/cidrs", b'{"cidr": "10.244.0.0/16", "snat": 1}', JSON, 422, "invalid-request"),
    ("POST", "/v1/cidrs", b'{"cidr": "10.244.0.0/16", "gateway": "x"}', JSON, 422, "invalid-request"),
    ("POST", "/v1/cidrs", b'{"cidr": "10.244.0.0/16", "phase": "withdrawn"}', JSON, 422, "invalid-request"),
    ("POST", "/v1/links", b'{"name": "hk"}', JSON, 422, "invalid-request"),
]


@pytest.mark.parametrize(("method", "target", "body", "headers", "status", "code"), BAD)
def test_bad_requests_get_a_problem_document(
    refusing: Appliance, method: str, target: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    got, kind, problem = raw(refusing, method, target, body, **headers)
    assert (got, problem["code"]) == (status, code)
    assert kind == "application/problem+json"
    assert problem["status"] == status
    assert problem["type"] == f"urn:nexthop:problem:{code}"
    assert problem["title"]
    assert problem["detail"]
    assert all(reason["text"] for reason in problem["reasons"])
    assert problem["reasons"]
    assert "instance of" not in problem["detail"]  # a name from our sources says nothing to a client
    assert refusing.cidrs() == []


def test_an_unknown_field_is_named(refusing: Appliance) -> None:
    _, _, problem = raw(refusing, "POST", "/v1/cidrs", b'{"cidr": "10.244.0.0/16", "gateway": 1}', **JSON)
    (reason,) = problem["reasons"]
    assert reason["code"] == "unknown-field"
    assert "gateway" in reason["text"]


def test_a_body_is_not_repeated_to_who_sent_it(refusing: Appliance) -> None:
    body = json.dumps({"name": ["hk"], "token": TOKEN, "x": TOKEN}).encode()
    _, _, problem = raw(refusing, "POST", "/v1/links", body, **JSON)
    assert TOKEN[:20] not in json.dumps(problem)


def test_a_large_body_is_refused_by_what_it_announces(refusing: Appliance) -> None:
    status, kind, problem = raw(refusing, "POST", "/v1/cidrs", b" " * (BODY_LIMIT + 1), **JSON)
    assert (status, kind, problem["code"]) == (413, "application/problem+json", "too-large")


def test_a_large_body_is_refused_as_it_comes(refusing: Appliance) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(str(refusing.socket))
        head = b"POST /v1/cidrs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        client.sendall(head + b"transfer-encoding: chunked\r\n\r\n")
        client.sendall(b"%x\r\n" % (BODY_LIMIT + 1) + b" " * (BODY_LIMIT + 1) + b"\r\n")
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 413
        assert json.loads(answer.read())["code"] == "too-large"


def test_a_mistake_of_ours_is_a_500_without_a_trace(joined: Appliance, caplog: pytest.LogCaptureFixture) -> None:
    def broken(network: object) -> None:
        raise RuntimeError("the inside of the machine")

    joined.kernel.layer = broken  # type: ignore[assignment,method-assign]
    raw(joined, "POST", "/v1/cidrs", b'{"cidr": "10.244.0.0/16"}', **JSON)
    with caplog.at_level(logging.ERROR):
        status, kind, problem = raw(joined, "GET", "/v1/cidrs")
    assert (status, kind, problem["code"]) == (500, "application/problem+json", "internal")
    assert "inside of the machine" not in json.dumps(problem)
    assert "Traceback" not in json.dumps(problem)
    assert "the inside of the machine" in caplog.text
