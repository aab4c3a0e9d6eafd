"""`nexthop events`: who changed what, and what was repaired; with --follow also what happens from now on.

A broken connection is taken up again after the last event that was seen, so none is missed and none is shown twice.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from api.commands.shared import AsJson, print_json, reach, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from api.client import Daemon

_SILENCE_SECONDS: Final = 45.0  # the daemon says something every 15
_AGAIN_SECONDS: Final = 2.0
_STREAM: Final = "text/event-stream"


def events(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="How many lines at most, the latest.", min=1, max=1000)] = 30,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens.")] = False,  # noqa: FBT002
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Show who changed what, and what was repaired; the latest last. With --json and --follow a document a line."""
    daemon = reach(context)
    answer = daemon.get(f"/v1/events?limit={limit}")
    from api import screens  # noqa: PLC0415

    if not follow:
        print_json(answer) if json else screens.events(answer["events"])
        return
    from json import dumps, loads  # noqa: PLC0415

    def show(event: dict[str, object]) -> None:
        typer.echo(dumps(event) if json else screens.event(event))

    for each in answer["events"]:
        show(each)
    last = str(answer["events"][-1]["id"]) if answer["events"] else "0"
    for text in _forever(daemon, last):
        show(loads(text))


def _forever(daemon: Daemon, last: str) -> Iterator[str]:
    """Yield the data of each event after `last`, over as many connections as it takes."""
    from api.client import NoAnswer, NotRunning  # noqa: PLC0415

    while True:
        try:
            lines = daemon.lines("/v1/events", _STREAM, {"Last-Event-ID": last}, _SILENCE_SECONDS)
            for last, text in numbered(lines):  # noqa: B007 - where to go on from
                yield text
        except (NoAnswer, NotRunning) as error:
            say(f"{error}; again in {_AGAIN_SECONDS:g} s")
        time.sleep(_AGAIN_SECONDS)


def numbered(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Read server-sent events (WHATWG HTML, "Server-sent events"); yield id and data of those that have an id."""
    number, data = "", []
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            number = value
        elif field == "data":
            data.append(value)
        elif not line:
            if number and data:
                yield number, "\n".join(data)
            number, data = "", []
