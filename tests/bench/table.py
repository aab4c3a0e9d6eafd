"""The report for people. Pure: a run in, text out.

Each row leads with what can be carried over to another machine: the fraction of no tunnel, then the ratio to each peer,
as a median with its range over the rounds. The absolute figures come last. Where less is better the title says `less!`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.bench import contenders
from tests.bench.claims import Outcome
from tests.bench.metrics import METRICS
from tests.bench.stats import Ratio, median, ratio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.bench.claims import Judged
    from tests.bench.metrics import Metric, Section
    from tests.bench.verdict import Validity

_NOTHING: Final = "-"


def figure(value: float | None) -> str:
    """Return a number with three significant digits, thousands as k."""
    if value is None:
        return _NOTHING
    if abs(value) >= 10_000:
        return f"{value / 1000:.3g}k"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}"


def spread(found: Ratio | None) -> str:
    """Return a ratio as its median, with the range behind it where there is one."""
    if found is None:
        return _NOTHING
    if found.count == 1:
        return f"{figure(found.median)}x"
    return f"{figure(found.median)}x ({figure(found.low)}-{figure(found.high)})"


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns, the first row underlined."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (rows[0], ["-" * width for width in widths], *rows[1:])
    ]
    return "\n".join(lines)


def section(found: Section, versions: Mapping[str, str]) -> str:
    """Return one section: a row for each metric and each mode of ours."""
    here = [one for one in contenders.ALL if one.key in found.readings]
    ours = [one for one in here if one.kind is contenders.Kind.OURS]
    bare = [one for one in here if one.kind is contenders.Kind.NONE]
    peers = [one for one in here if one.peer]
    names = {one.key: f"{one.title} {versions.get(one.key, '')}".strip() for one in peers}
    others = [*bare, *peers]
    head = [
        "",
        "mode",
        *(f"/ {one.title}" for one in bare),
        *(f"/ {names[one.key]}" for one in peers),
        "ours",
        *(one.title for one in others),
        "unit",
    ]
    rows = [head]
    for metric in METRICS.values():
        if metric.shown and any(metric.key in figures for figures in found.readings.values()):
            rows += _rows(found, metric, [one.key for one in ours] or [""], [one.key for one in others])
    if len(rows) == 1:
        rows.append([_NOTHING] * len(head))
    return f"{found.title}\n\n{grid(rows)}"


def _rows(found: Section, metric: Metric, modes: Sequence[str], others: Sequence[str]) -> list[list[str]]:
    title = metric.title + (" (less!)" if metric.less_is_better else "")
    rows = []
    for mode in modes:
        mine = found.of(mode, metric.key)
        ratios = [spread(ratio(mine, found.of(other, metric.key))) for other in others]
        absolute = [figure(median(found.of(one, metric.key))) for one in (mode, *others)]
        rows.append([title, mode, *ratios, *absolute, metric.unit])
        title = ""
    return rows


def claims(judged: Sequence[Judged]) -> str:
    """Return what must hold, and whether it did."""
    if not judged:
        return "What must hold: nothing was measured that it speaks of."
    rows = [["what must hold", "mode", "median", "floor", "goal", "rounds", ""]]
    for one in judged:
        sign = "<=" if one.claim.at_most else ">="
        rows.append(
            [
                one.claim.text,
                one.mode,
                figure(one.value),
                f"{sign} {one.claim.floor:g}" if one.claim.floor else _NOTHING,
                f"{sign} {one.claim.goal:g}",
                str(one.count),
                "" if one.outcome is Outcome.FLOOR and not one.claim.floor else one.outcome.value,
            ]
        )
    return grid(rows)


def validity(found: Validity, failures: Sequence[str]) -> str:
    """Return whether the run counts, and what could not be measured."""
    if found.reasons:
        lines = ["THIS RUN IS INVALID; do not quote it:", *(f"  - {reason}" for reason in found.reasons)]
    elif not found.judged:
        lines = ["Do not quote this run: nothing was measured that tells how fast this machine is."]
    else:
        lines = ["This run is valid."]
    if failures:
        lines += ["Not measured:", *(f"  - {' '.join(failure.split())[:300]}" for failure in failures)]
    return "\n".join(lines)
