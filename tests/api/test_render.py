from __future__ import annotations

import io
from typing import Any

import pytest

from api import render


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


LINK: dict[str, Any] = {
    "name": "hk",
    "device": "tun-hk",
    "server": "203.0.113.10:9443",
    "state": "connecting",
    "code": "",
    "reason": "",
    "address": "",
    "peer": "",
    "since": None,
    "retry_at": None,
    "rtt_ms": None,
    "counters": {},
}


def test_columns_line_up_and_nothing_trails() -> None:
    out = io.StringIO()
    render.table(["A", "LONGER"], [["1", "2"], ["three", ""]], out)
    assert out.getvalue() == "A      LONGER\n1      2\nthree  -\n"


def test_a_terminal_gets_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "200")
    plain, terminal = io.StringIO(), Terminal()
    for out in (plain, terminal):
        render.links({"links": [LINK, LINK | {"state": "down", "reason": "[red]no[/red]"}]}, 0.0, out)
    assert terminal.getvalue().split() == plain.getvalue().split()
    assert "[red]no[/red]" in terminal.getvalue()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"state": "up", "since": 100.0}, "up for 20s"),
        ({"state": "up", "since": 130.0}, "up for 0s"),  # the clock was set back
        ({"state": "up"}, "up"),
        ({}, "connecting"),
        ({"state": "down", "reason": "no answer"}, "down: no answer"),
        ({"state": "down", "reason": "no answer", "retry_at": 128.0}, "down: no answer, next try in 8s"),
        ({"state": "down", "reason": "no answer", "retry_at": 119.0}, "down: no answer"),
    ],
)
def test_a_link_in_words(changes: dict[str, object], text: str) -> None:
    assert render.link_state(LINK | changes, 120.0) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0s"), (0.4, "0s"), (59, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (10**6, "11d")]
)
def test_a_duration_has_the_one_unit_that_matters(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


def test_a_line_stays_a_line() -> None:
    assert render.clean("a\r\nb\x1b[31m\u2028c") == "a  b [31m c"


def test_reasons_fall_back_to_what_there_is() -> None:
    assert render.reasons({"detail": "no"}) == ["no"]
    assert render.reasons({"reasons": [{"code": "x", "text": "no", "next_step": "do"}]}) == ["no -> do"]
