"""The pieces that answers are shown in: tables, states, moments, reasons; `api.screens` puts them together.

Plain ASCII lines, so that they read the same in a pipe, a ticket and a screen reader. On a terminal rich draws the
tables and adds colour; the meaning is always in the words. Text that came from outside (a comment, a cloud's message)
is printed without its control characters, and never as markup.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Json = dict[str, Any]

_COLOURS = {"ok": "green", "up": "green", "pending": "yellow", "connecting": "yellow", "error": "red", "down": "red"}
LAYERS = ("kernel", "cloud", "path")
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def clean(text: object) -> str:
    """Return `text` on one line and without anything that could steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in str(text))


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], out: TextIO | None = None, indent: int = 0) -> None:
    """Print `rows` in columns under `headers`."""
    out = out or sys.stdout
    cells = [[clean(cell) or "-" for cell in row] for row in rows]
    if out.isatty():
        _rich_table(headers, cells, out, indent)
        return
    widths = [max(len(line[i]) for line in [list(headers), *cells]) for i in range(len(headers))]
    for line in [list(headers), *cells]:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        out.write(" " * indent + text.rstrip() + "\n")


def _rich_table(headers: Sequence[str], cells: Sequence[Sequence[str]], out: TextIO, indent: int) -> None:
    from rich.console import Console  # noqa: PLC0415  (a quarter of a second that a pipe need not pay)
    from rich.padding import Padding  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(*headers, box=None, pad_edge=False, header_style="dim")
    for row in cells:
        drawn.add_row(*(Text(cell, style=_COLOURS.get(cell.partition(":")[0].partition(" ")[0], "")) for cell in row))
    Console(file=out, highlight=False).print(Padding(drawn, (0, 0, 0, indent)))


def cidrs(answer: Mapping[str, Any], out: TextIO | None = None, indent: int = 0) -> None:
    """Print the CIDRs with the state of each layer."""
    rows = [
        [each["cidr"], each["via"], _phase(each), *(layer(each, name) for name in LAYERS), each["comment"]]
        for each in answer["cidrs"]
    ]
    table(["CIDR", "VIA", "PHASE", "KERNEL", "CLOUD", "PATH", "COMMENT"], rows, out, indent)


def layer(cidr: Mapping[str, Any], name: str) -> str:
    """Return a layer's state, and in words what is the matter unless it is ok."""
    found = cidr["path"] if name == "path" else cidr["layers"][name]
    if name == "path" and found["state"] == "absent":
        return ""  # nobody asked for a probe
    state, detail = str(found["state"]), clean(found["detail"])
    return state if state == "ok" or not detail else f"{state}: {detail}"


def _phase(cidr: Mapping[str, Any]) -> str:
    return str(cidr["phase"]) if cidr["snat"] else f"{cidr['phase']}, no snat"


def links(answer: Mapping[str, Any], now: float, out: TextIO | None = None, indent: int = 0) -> None:
    """Print the links; `now` in seconds since the epoch."""
    rows = [
        [
            each["name"],
            link_state(each, now),
            each["device"],
            each["address"] or "-",
            each["server"] or "-",
            "-" if each["rtt_ms"] is None else f"{each['rtt_ms']:.1f} ms",
        ]
        for each in answer["links"]
    ]
    table(["LINK", "STATE", "DEVICE", "ADDRESS", "SERVER", "RTT"], rows, out, indent)


def link_state(link: Mapping[str, Any], now: float) -> str:
    """Return e.g. ``up for 3m`` or ``down: the server refuses this client's key, next try in 8s``."""
    state = str(link["state"])
    if state == "up":
        text = state if link["since"] is None else f"up for {duration(now - link['since'])}"
        return f"{text}, {clean(link['reason'])}" if link["reason"] else text
    text = state if not link["reason"] else f"{state}: {clean(link['reason'])}"
    if link["retry_at"] is not None and link["retry_at"] > now:
        text += f", next try in {duration(link['retry_at'] - now)}"
    return text


def moment(at: float | None) -> str:
    """Return seconds since the epoch in the time of this machine; empty where there is none."""
    from datetime import UTC, datetime  # noqa: PLC0415

    return "" if at is None else datetime.fromtimestamp(at, UTC).astimezone().isoformat(" ", "seconds")


def duration(seconds: float) -> str:
    """Return the one unit that matters: ``42s``, ``3m``, ``5h``, ``12d``."""
    whole = max(0, round(seconds))
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def reasons(problem: Mapping[str, Any]) -> list[str]:
    """Return the lines that say why something was refused, and what to do."""
    given = problem.get("reasons") or [
        {"text": problem.get("detail") or problem.get("title"), "code": "", "next_step": ""}
    ]
    lines = []
    for reason in given:
        line = clean(reason["text"])
        lines.append(f"{line} -> {clean(reason['next_step'])}" if reason.get("next_step") else line)
    return lines
