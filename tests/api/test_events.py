"""The history as a stream: real server-sent events over the Unix socket, read as a browser would."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from appliance.status import Layer, LayerState

from .conftest import Appliance, serving


@dataclass
class Stream:
    """One event stream, event by event."""

    connection: socket.socket
    buffer: bytes = b""
    head: str = ""
    ended: bool = False
    comments: list[str] = field(default_factory=list)

    def _more(self) -> bool:
        data = self.connection.recv(65536)
        self.buffer += data
        return bool(data)

    def open(self, target: str, **headers: str) -> None:
        lines = [f"GET {target} HTTP/1.1", "Host: localhost", "Accept: text/event-stream"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        while b"\r\n\r\n" not in self.buffer:
            assert self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        self.head = head.decode()

    def next(self) -> dict[str, Any] | None:
        """Return the next event, None at the stream's clean end."""
        while True:
            text = b"".join(line for line in self._chunks())
            for block in text.decode().split("\n\n")[:-1][self._taken :]:
                self._taken += 1
                event = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
                if "data" in event:
                    return {**event, "data": json.loads(event["data"])}
            if self.ended:
                return None
            assert self._more(), "broken off"

    _taken = 0

    def _chunks(self) -> Iterator[bytes]:
        """Return the body so far, out of its chunks."""
        rest = self.buffer
        while b"\r\n" in rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            if length == 0:
                self.ended = True
                return
            if len(rest) < length + 2:
                return
            yield rest[:length]
            rest = rest[length + 2 :]


@contextmanager
def stream(appliance: Appliance, target: str = "/v1/events", **headers: str) -> Iterator[Stream]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(appliance.socket))
        made = Stream(connection)
        made.open(target, **headers)
        yield made


def test_a_change_is_told_at_once_and_so_is_what_becomes_of_it(joined: Appliance) -> None:
    with stream(joined) as events:
        assert "200 OK" in events.head
        assert "text/event-stream" in events.head
        first = events.next()
        assert first is not None
        assert first["event"] == "state"
        assert "id" not in first
        assert first["data"]["cidrs"] == {}
        joined.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
        added = events.next()
        assert added is not None
        assert (added["event"], added["data"]["cidr"]) == ("added", "10.244.0.0/16")
        assert int(added["id"]) == added["data"]["id"]
        state = events.next()
        assert state is not None
        assert state["data"]["cidrs"]["10.244.0.0/16"]["kernel"] == "ok"
        joined.kernel.now = Layer(LayerState.ERROR, "no", "kernel")
        state = events.next()
        assert state is not None
        assert state["data"]["cidrs"]["10.244.0.0/16"]["kernel"] == "error"
        assert state["data"]["verdict"]["level"] == "broken"


def test_a_stream_ends_with_the_token_that_opened_it(joined: Appliance) -> None:
    gone, kept = joined.token("read", "gone"), joined.token("read", "kept")
    with joined.following("/v1/events", gone) as ending, joined.following("/v1/events", kept) as going:
        while b"event: state" not in ending.readline():
            pass
        joined.daemon.request("DELETE", "/v1/tokens/gone")
        joined.daemon.request("POST", "/v1/tokens", {"name": "gone", "scope": "read"})  # another one of that name
        while ending.readline():
            pass
        joined.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
        while b"event: added" not in going.readline():
            pass


def test_a_broken_stream_goes_on_without_a_gap(joined: Appliance) -> None:
    joined.daemon.request("POST", "/v1/cidrs", {"cidr": "10.244.0.0/16"})
    joined.daemon.request("POST", "/v1/cidrs", {"cidr": "10.245.0.0/16"})
    joined.daemon.request("POST", "/v1/cidrs", {"cidr": "10.246.0.0/16"})
    rows = [event["id"] for event in joined.daemon.get("/v1/events")["events"]]
    with stream(joined, Last_Event_ID=str(rows[0])) as events:
        found = [events.next(), events.next()]
        assert [event["data"]["id"] for event in found if event] == rows[1:]


@pytest.mark.parametrize("last", ["-1", "many", "99999999999999999999", "9999"])
def test_a_last_event_that_never_was_is_no_error(joined: Appliance, last: str) -> None:
    with stream(joined, Last_Event_ID=last) as events:
        first = events.next()
        assert first is not None
        assert first["event"] == "state"


def test_as_json_it_comes_in_pages_newest_last(joined: Appliance) -> None:
    for number in range(5):
        joined.daemon.request("POST", "/v1/cidrs", {"cidr": f"10.{number}.0.0/16"})
    page = joined.daemon.get("/v1/events?limit=2")
    assert [event["cidr"] for event in page["events"]] == ["10.3.0.0/16", "10.4.0.0/16"]
    assert joined.daemon.get(f"/v1/events?after={page['next']}") == {"events": [], "next": page["next"]}
    seen, after = [], 0
    while (page := joined.daemon.get(f"/v1/events?after={after}&limit=2"))["events"]:
        seen += [event["cidr"] for event in page["events"]]
        after = page["next"]
    assert seen == [f"10.{number}.0.0/16" for number in range(5)]


def test_a_daemon_that_is_told_to_stop_ends_its_streams_cleanly(tmp_path: Any) -> None:
    made = serving(tmp_path)
    appliance = made.__enter__()
    with stream(appliance) as events:
        assert events.next() is not None
        made.__exit__(None, None, None)
        assert events.next() is None  # the last chunk came: no broken connection


def test_there_are_not_too_many_streams(joined: Appliance) -> None:
    with socket.socket(socket.AF_UNIX):
        opened = []
        try:
            for _ in range(33):
                context = stream(joined)
                opened.append((context, context.__enter__()))
            assert [made.head.split()[1] for _, made in opened] == ["200"] * 32 + ["429"]
        finally:
            for context, _ in opened:
                context.__exit__(None, None, None)
