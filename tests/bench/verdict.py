"""May the figures of a run be quoted? Pure.

A run in which everybody is slow says something about the machine and nothing about us. So it is invalid where the path
without a tunnel or a peer falls far below what it usually gives on two unloaded cores, or where the machine was not its
own before the run began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.bench.metrics import METRICS
from tests.bench.stats import median

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.bench.metrics import Section

MOST_BUSY: Final = 0.15
MOST_STOLEN: Final = 0.03


@dataclass(frozen=True, slots=True)
class Usual:
    """What a contender's median has to reach for a run to count; `versions`: from the first to before the second."""

    section: str
    contender: str
    metrics: tuple[str, ...]
    least: float
    versions: tuple[str, str] = ("", "~")

    def speaks_of(self, version: str) -> bool:
        """Tell whether it is about that version."""
        return self.versions[0] <= version < self.versions[1]


_ONE_FLOW: Final = ("tcp1_up", "tcp1_down")
_OFFLOADS_CAME: Final = "0.0.20231211"
"""The first release of wireguard-go that moves more than one packet at a time; its versions are dates."""

USUAL: Final = (
    Usual("fast", "none", _ONE_FLOW, 8.0),
    Usual("fast", "wireguard-go", _ONE_FLOW, 0.8, (_OFFLOADS_CAME, "~")),
    Usual("fast", "wireguard-go", _ONE_FLOW, 0.15, ("", _OFFLOADS_CAME)),
    Usual("fast", "openvpn", _ONE_FLOW, 0.2),
    Usual("plain", "none", _ONE_FLOW, 1.5),
    Usual("wan-1", "none-bbr", ("late",), 70.0),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What was seen of the machine: parts of its processors' time, and how many of them the run could use."""

    processors: int
    busy_before: float
    stolen: float


@dataclass(frozen=True, slots=True)
class Validity:
    """`reasons` why the run does not count; `judged`: whether anything was read that the machine can be judged by."""

    reasons: tuple[str, ...]
    judged: bool

    @property
    def valid(self) -> bool:
        """Tell whether the figures may be quoted."""
        return self.judged and not self.reasons


def judge(
    sections: Mapping[str, Section],
    versions: Mapping[str, str],
    machine: Machine,
    usual: Iterable[Usual] = USUAL,
) -> Validity:
    """Judge a run by its readings, the versions of the contenders, and what was seen of the machine."""
    reasons, judged = list(_of_machine(machine)), False
    for one in usual:
        section = sections.get(one.section)
        if section is None or not one.speaks_of(versions.get(one.contender, "")):
            continue
        for metric in one.metrics:
            if not (read := section.of(one.contender, metric)):
                continue
            judged, value = True, median(read)
            if value is None or value < one.least:
                got = "nothing" if value is None else f"{value:.2f} {METRICS[metric].unit}"
                reasons.append(
                    f"{one.section}, {one.contender}: {got} in '{METRICS[metric].title}',"
                    f" where an idle machine gives more than {one.least:g}"
                )
    return Validity(tuple(reasons), judged)


def _of_machine(machine: Machine) -> Iterable[str]:
    if machine.busy_before > MOST_BUSY:
        yield f"the machine was {machine.busy_before:.0%} busy before the run: let it have nothing else to do"
    if machine.stolen > MOST_STOLEN:
        yield f"the hypervisor gave {machine.stolen:.0%} of the processors' time to others"
    if machine.processors < 2:
        yield "one processor: both ends need one each"
