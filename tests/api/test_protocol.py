"""What is no HTTP, and who is slow: real connections, with the patience of the server turned down."""

from __future__ import annotations

import json
import socket
import ssl
import time

import pytest

from api.protocol import MOST, Guarded

from .conftest import Appliance


@pytest.fixture
def impatient(appliance: Appliance, monkeypatch: pytest.MonkeyPatch) -> Appliance:
    monkeypatch.setattr(Guarded, "arrives", 0.3)
    monkeypatch.setattr(Guarded, "takes", 0.3)
    return appliance


def connect(appliance: Appliance) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    while True:
        try:
            connection.connect(str(appliance.socket))
        except BlockingIOError:  # nobody has taken the ones before yet
            time.sleep(0.01)
        else:
            return connection


def rest(connection: socket.socket) -> bytes:
    data = b""
    while more := connection.recv(65536):
        data += more
    return data


def problem(answer: bytes) -> tuple[int, str]:
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"Traceback" not in content
    return int(head.split()[1]), json.loads(content)["code"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET /v1/status\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nHost: b\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n",
        b"GET /" + b"a" * 600_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(60_000)) + b"\r\n",
        b"POST /v1/cidrs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/cidrs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"\r\n\r\n\r\n" + b"\xff" * 100 + b"\r\n\r\n",
    ],
    ids=range(10),
)
def test_what_is_no_http_gets_a_problem_and_the_connections_end(refusing: Appliance, sent: bytes) -> None:
    with connect(refusing) as connection:
        connection.sendall(sent)
        assert problem(rest(connection)) == (400, "bad-request")


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"G",
        b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        b"POST /v1/cidrs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
        b"POST /v1/cidrs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
    ],
    ids=["silent", "a letter", "a header", "a body", "a chunk"],
)
def test_a_request_that_does_not_arrive_ends(impatient: Appliance, begun: bytes) -> None:
    with connect(impatient) as connection:
        connection.sendall(begun)
        assert problem(rest(connection)) == (408, "request-timeout")
    assert impatient.changes == []
    assert impatient.daemon.get("/livez") == {"status": "ok"}


def test_a_second_request_has_its_own_time(impatient: Appliance) -> None:
    with connect(impatient) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in connection.recv(65536)
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ")
        assert problem(rest(connection)) == (408, "request-timeout")


def test_who_does_not_take_what_he_asked_for_is_let_go(impatient: Appliance) -> None:
    with connect(impatient) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(OSError):  # noqa: PT011, PT012  (a broken pipe or a reset)
            for _ in range(100_000):
                connection.sendall(b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")


def test_there_are_not_too_many_connections_and_the_rest_goes_on(appliance: Appliance) -> None:
    opened = [connect(appliance) for _ in range(MOST)]
    try:
        with connect(appliance) as one_more:
            assert one_more.recv(1) == b""
    finally:
        for each in opened:
            each.close()
    assert appliance.remote("GET", "/livez").status == 200


def test_plain_http_and_old_tls_get_nothing_from_the_tls_port(appliance: Appliance) -> None:
    with socket.create_connection(("127.0.0.1", appliance.port), timeout=20) as plain:
        plain.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" not in rest_or_reset(plain)
    context = ssl.create_default_context(cafile=str(appliance.state / "api" / "tls.pem"))
    with (
        socket.create_connection(("127.0.0.1", appliance.port), timeout=20) as connection,
        context.wrap_socket(connection, server_hostname="127.0.0.1") as secured,
    ):
        assert secured.version() in {"TLSv1.2", "TLSv1.3"}


def rest_or_reset(connection: socket.socket) -> bytes:
    try:
        return rest(connection)
    except ConnectionResetError:
        return b""
