"""The screens that `nexthop` shows, one function each, from the API's answers; the first line says what matters."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, TextIO

from api.render import LAYERS, cidrs, clean, layer, links, moment, table

if TYPE_CHECKING:
    from collections.abc import Mapping

_LEVELS: Final = {"ok": "OK", "degraded": "DEGRADED", "broken": "BROKEN"}
_STYLES: Final = {"ok": "bold green", "degraded": "bold yellow", "broken": "bold red"}


def status(answer: Mapping[str, Any], now: float, out: TextIO | None = None) -> None:
    """Print one screen: the verdict, what to do, and then everything behind it."""
    out = out or sys.stdout
    verdict = answer["verdict"]
    _headline(f"{_LEVELS[verdict['level']]}: {clean(verdict['text'])}", verdict["level"], out)
    if verdict["next_step"]:
        out.write(f"  -> {clean(verdict['next_step'])}\n")
    if len(answer["findings"]) > 1:
        out.write("\nAlso\n")
        for finding in answer["findings"][1:]:
            out.write(f"  - {clean(finding['text'])} [{clean(finding['code'])}]\n")
            if finding["next_step"]:
                out.write(f"    -> {clean(finding['next_step'])}\n")
    out.write("\nLinks\n")
    if answer["links"]:
        links(answer, now, out, indent=2)
    else:
        out.write("  none\n")
    out.write("\nCIDRs\n")
    if answer["cidrs"]:
        cidrs(answer, out, indent=2)
    else:
        out.write("  none\n")
    out.write("\n")
    for name, text in _machine(answer):
        out.write(f"{name:<10}{text}\n")


def _headline(text: str, level: str, out: TextIO) -> None:
    if not out.isatty():
        out.write(text + "\n")
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    Console(file=out, highlight=False).print(Text(text, style=_STYLES[level]), soft_wrap=True)


def _machine(answer: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what holds for the whole machine, a name and a text each."""
    firewall, api = answer["firewall"], answer["api"]
    why = f" (fell back: {clean(firewall['fallback_reason'])})" if firewall["fallback_reason"] else ""
    told = [
        ("Firewall", clean(firewall["name"] or "not chosen yet") + why),
        ("Cloud", _cloud(answer["cloud"])),
    ]
    if api["listen"]:
        told.append(("API", f"https://{clean(api['listen'])}, fingerprint {clean(api['fingerprint'])}"))
    if answer["drift_repairs"]:
        repairs = (f"{clean(kind)} {count}" for kind, count in sorted(answer["drift_repairs"].items()))
        told.append(("Repaired", ", ".join(repairs)))
    return [*told, ("Version", clean(answer["version"]))]


def _cloud(cloud: Mapping[str, Any]) -> str:
    text = " ".join(clean(cloud[key]) for key in ("provider", "vpc_id", "instance_id") if cloud[key])
    if cloud["tables"]:
        text += f", tables {', '.join(map(clean, cloud['tables']))}"
    return f"{text}: {clean(cloud['error']['text'])}" if cloud["error"] else text


def cidr(answer: Mapping[str, Any], out: TextIO | None = None) -> None:
    """Print one CIDR: how far it is, then how it is carried."""
    out = out or sys.stdout
    out.write(f"{answer['cidr']} via {clean(answer['via'])}, {answer['phase']}\n")
    for name in LAYERS:
        out.write(f"  {name:<10}{layer(answer, name) or '-'}\n")
    for name in ("snat", "mss", "probe", "when_down", "hold_down", "comment"):
        value = {True: "on", False: "off"}.get(answer[name], answer[name])
        out.write(f"  {name:<10}{clean(value) or '-'}\n")
    out.write(f"  {'since':<10}{moment(answer['created_at'])}\n")
    for warning in answer["warnings"]:
        step = f" -> {clean(warning['next_step'])}" if warning["next_step"] else ""
        out.write(f"  warning: {clean(warning['text'])}{step}\n")


def explanation(answer: Mapping[str, Any], out: TextIO | None = None) -> None:
    """Print the answer, then each step of the way up to the one that does not hold."""
    out = out or sys.stdout
    out.write(clean(answer["answer"]) + "\n")
    for step in answer["steps"]:
        out.write(f"  {'ok' if step['ok'] else 'NO':<4}{step['layer']:<8}{clean(step['text'])}\n")
        if step["next_step"] and not step["ok"]:
            out.write(f"{'':14}-> {clean(step['next_step'])}\n")


def routes(answer: Mapping[str, Any], out: TextIO | None = None) -> None:
    """Print the VPC's route tables."""
    out = out or sys.stdout
    if not answer["tables"]:
        out.write("no route table was read yet: nexthop status says why\n")
        return
    for found in answer["tables"]:
        fill = answer["quota"].get(found["id"])
        room = f", {fill['free']} free of {fill['limit']}" if fill else ""
        used = f" for {', '.join(map(clean, found['vswitches']))}" if found["vswitches"] else ""
        out.write(f"{clean(found['id'])} ({clean(found['kind'])}{room}){used}\n")
        rows = [
            [each["cidr"], each["next_hop"], each["owner"], each["status"], each["note"]] for each in found["entries"]
        ]
        table(["CIDR", "NEXT HOP", "WHOSE", "STATUS", "NOTE"], rows, out, indent=2)
    out.write(f"as read {moment(answer['observed_at'])}\n")


def events(found: list[dict[str, Any]], out: TextIO | None = None) -> None:
    """Print what happened, the latest last."""
    rows = [[moment(each["at"]), *(each[key] for key in ("who", "what", "cidr", "detail"))] for each in found]
    table(["WHEN", "WHO", "WHAT", "CIDR", "DETAIL"], rows, out)


def event(found: Mapping[str, Any]) -> str:
    """Return one event as a line."""
    parts = [moment(found["at"]), *(clean(found[key]) for key in ("who", "what", "cidr", "detail"))]
    return "  ".join(part for part in parts if part)
