"""What must hold: the floors and goals that this project has set itself, judged from a run's readings. Pure.

A claim compares one figure of one of our modes with a bound: with a peer's figure of the same round, with another of
its own figures, or with a fixed number. A claim whose readings are not there is not judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from tests.bench import contenders
from tests.bench.stats import ratio

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.bench.metrics import Section


class Outcome(Enum):
    """How a claim fared."""

    MISSED = "MISSED"
    FLOOR = "holds"
    GOAL = "goal"


@dataclass(frozen=True, slots=True)
class Claim:
    """`metric` of a mode in `section`, over `other` (contender or "", metric), bounded by `floor`, better by `goal`.

    With "" as the other contender it is the same mode's own figure; with None the figure counts by itself.
    `modes` are prefixes of the modes' keys that it is claimed of; none: all. `at_most` turns the bounds around.
    """

    text: str
    section: str
    metric: str
    other: tuple[str, str] | None
    floor: float
    goal: float
    at_most: bool = False
    modes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim about one mode: the median, and what that means."""

    claim: Claim
    mode: str
    value: float
    count: int
    outcome: Outcome


_WG: Final = "wireguard-go"
_STREAM: Final = ("stream", "hybrid")
_DATAGRAM: Final = ("datagram",)
_HYBRID: Final = ("hybrid",)


def _against_wireguard() -> Iterable[Claim]:
    for direction in ("up", "down"):
        metric = f"tcp1_{direction}"
        text = f"one TCP flow {direction} / wireguard-go"
        yield Claim(text, "fast", metric, (_WG, metric), 12, 20, modes=_STREAM)
        yield Claim(text, "fast", metric, (_WG, metric), 6, 12, modes=_DATAGRAM)
        yield Claim(f"one TCP flow {direction} / no tunnel", "fast", metric, ("none", metric), 0, 0.3)
        eight = f"tcp8_{direction}"
        yield Claim(f"eight flows {direction} / one", "fast", eight, ("", metric), 0.9, 1)
        yield Claim(f"one TCP flow {direction} / wireguard-go, no offloads", "plain", metric, (_WG, metric), 2, 3)
    yield Claim("64-byte UDP delivered / wireguard-go", "fast", "udp64", (_WG, "udp64"), 2, 3)
    yield Claim("added RTT / wireguard-go's", "fast", "rtt_added", (_WG, "rtt_added"), 1.3, 1, at_most=True)


def _on_the_long_line() -> Iterable[Claim]:
    for loss in ("0", "0.1", "1", "3"):
        text = f"goodput once settled, {loss} % loss / BBR at the hosts"
        floor = 0.8 if loss == "1" else 0
        yield Claim(text, f"wan-{loss}", "late", ("none-bbr", "late"), floor, 0.9, modes=_HYBRID)
    yield Claim("goodput at the start, 1 % loss, Mbit/s", "wan-1", "early", None, 20, 50, modes=_HYBRID)
    for loss in ("0", "1"):
        text = f"ping beside a bulk flow, {loss} % loss / idle"
        yield Claim(text, f"wan-{loss}", "ping_ratio", None, 1.3, 1.1, at_most=True)
        text = f"TCP connect beside a bulk flow, {loss} % loss / idle"
        yield Claim(text, f"wan-{loss}", "connect_ratio", None, 1.5, 1.1, at_most=True)


def _of_memory() -> Iterable[Claim]:
    yield Claim("gtun, MiB (PSS)", "fast", "pss_near", None, 64, 48, at_most=True)
    for count in (1, 10, 50):
        text = f"gtund with {count} client{'s' * (count > 1)}, MiB (PSS) in all"
        yield Claim(text, f"clients-{count}", "pss_far", None, 64.0 * count, 32.0 * count, at_most=True)


def _of_the_whole() -> Iterable[Claim]:
    """What is not the tunnel's: in ms, seconds and shares, with the tunnel's default channel."""
    for text, metric, floor, goal in (
        ("POST /v1/cidrs to the first packet, ms", "first_packet", 100, 50),
        ("all CIDRs in the kernel, s", "all_applied", 2, 0.5),
        ("one CIDR more, ms", "one_more", 50, 25),
        ("CPU of a pass without change, ms", "idle_pass", 200, 50),
        ("requests that failed of 50/s", "requests_failed", 0, 0),
    ):
        yield Claim(text, "whole", metric, None, floor, goal, at_most=True, modes=_HYBRID)
    yield Claim("one flow, many CIDRs / one", "whole", "flow_many", ("", "flow_one"), 0.9, 0.97, modes=_HYBRID)
    yield Claim("1 Gbit/s kept beside 50 requests/s", "whole", "offered_kept", None, 0.9, 0.99, modes=_HYBRID)


CLAIMS: Final = (*_against_wireguard(), *_on_the_long_line(), *_of_memory(), *_of_the_whole())


def judge(sections: Mapping[str, Section], claims: Sequence[Claim] = CLAIMS) -> tuple[Judged, ...]:
    """Judge each claim about each mode of ours for which there are readings."""
    found = (_judge(claim, mode.key, sections) for claim in claims for mode in contenders.OURS)
    return tuple(judged for judged in found if judged is not None)


def _judge(claim: Claim, mode: str, sections: Mapping[str, Section]) -> Judged | None:
    section = sections.get(claim.section)
    if section is None or (claim.modes and not mode.startswith(claim.modes)):
        return None
    mine = section.of(mode, claim.metric)
    theirs = [1.0] * len(mine) if claim.other is None else section.of(claim.other[0] or mode, claim.other[1])
    found = ratio(mine, theirs)
    if found is None:
        return None
    return Judged(claim, mode, found.median, found.count, outcome(claim, found.median))


def outcome(claim: Claim, value: float) -> Outcome:
    """Compare a median with a claim's bounds."""
    sign = -1 if claim.at_most else 1
    if sign * value < sign * claim.floor:
        return Outcome.MISSED
    return Outcome.GOAL if sign * value >= sign * claim.goal else Outcome.FLOOR
