"""Answers as text for people: plain ASCII lines, so that they read the same in a pipe, a ticket and a screen reader.

On a terminal rich draws the tables and adds colour; the meaning is always in the words. Text that came from outside (a
comment, a cloud's message) is printed without its control characters, and never as markup.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Json = dict[str, Any]

_COLOURS = {"ok": "green", "up": "green", "pending": "yellow", "connecting": "yellow", "error": "red", "down": "red"}
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
        [each["cidr"], each["via"], _phase(each), layer(each, "kernel"), layer(each, "cloud"), each["comment"]]
        for each in answer["cidrs"]
    ]
    table(["CIDR", "VIA", "PHASE", "KERNEL", "CLOUD", "COMMENT"], rows, out, indent)


def layer(cidr: Mapping[str, Any], name: str) -> str:
    """Return a layer's state, and in words what is the matter unless it is ok."""
    found = cidr["layers"][name]
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


def history(answer: Mapping[str, Any], out: TextIO | None = None) -> None:
    """Print what happened, with the time of this machine."""
    from datetime import UTC, datetime  # noqa: PLC0415

    rows = [
        [
            datetime.fromtimestamp(each["at"], UTC).astimezone().isoformat(" ", "seconds"),
            *(each[key] for key in ("who", "what", "cidr", "detail")),
        ]
        for each in answer["events"]
    ]
    table(["WHEN", "WHO", "WHAT", "CIDR", "DETAIL"], rows, out)


def link_state(link: Mapping[str, Any], now: float) -> str:
    """Return e.g. ``up for 3m`` or ``down: the server refuses this client's key, next try in 8s``."""
    state = str(link["state"])
    if state == "up":
        return state if link["since"] is None else f"up for {duration(now - link['since'])}"
    text = state if not link["reason"] else f"{state}: {clean(link['reason'])}"
    if link["retry_at"] is not None and link["retry_at"] > now:
        text += f", next try in {duration(link['retry_at'] - now)}"
    return text


def duration(seconds: float) -> str:
    """Return the one unit that matters: ``42s``, ``3m``, ``5h``, ``12d``."""
    whole = max(0, round(seconds))
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def status(answer: Mapping[str, Any], now: float, out: TextIO | None = None) -> None:
    """Print one screen whose first line is the verdict."""
    out = out or sys.stdout
    _verdict(answer, out)
    problems = [each for each in answer["findings"] if each["level"] != "ok"]
    if problems:
        out.write("\nProblems\n")
        for number, problem in enumerate(problems, 1):
            out.write(f"  {number}. {clean(problem['text'])} [{clean(problem['code'])}]\n")
            if problem["next_step"]:
                out.write(f"     -> {clean(problem['next_step'])}\n")
    out.write("\nLinks\n")
    if answer["links"]:
        links(answer, now, out, indent=2)
    else:
        out.write("  none: nexthop link join NAME --file TOKENFILE\n")
    out.write("\nCIDRs\n")
    if answer["cidrs"]:
        cidrs(answer, out, indent=2)
    else:
        out.write("  none: nexthop cidr add CIDR\n")
    out.write("\n")
    firewall, cloud = answer["firewall"], answer["cloud"]
    why = firewall["fallback_reason"]
    out.write(
        f"Firewall  {clean(firewall['name'] or 'not chosen yet')}{f' (fell back: {clean(why)})' if why else ''}\n"
    )
    out.write(f"Cloud     {_cloud(cloud)}\n")
    if answer["drift_repairs"]:
        repairs = ", ".join(f"{clean(kind)} {count}" for kind, count in sorted(answer["drift_repairs"].items()))
        out.write(f"Repaired  {repairs}\n")


def _verdict(answer: Mapping[str, Any], out: TextIO) -> None:
    verdict = answer["verdict"]
    line = f"{verdict['level'].upper()}: {clean(verdict['text'])}"
    if not out.isatty():
        out.write(line + "\n")
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    style = "bold green" if verdict["level"] == "ok" else "bold red"
    Console(file=out, highlight=False).print(Text(line, style=style), soft_wrap=True)


def _cloud(cloud: Mapping[str, Any]) -> str:
    text = " ".join(clean(cloud[key]) for key in ("provider", "vpc_id", "instance_id") if cloud[key])
    if cloud["tables"]:
        text += f", tables {', '.join(map(clean, cloud['tables']))}"
    return f"{text}: {clean(cloud['error']['text'])}" if cloud["error"] else text


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
