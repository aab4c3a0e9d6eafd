"""What is measured: every figure's name, unit, and which way is better. Pure.

A reading is one figure of one contender in one round, None where the measurement failed. Readings are kept by section
(one topology and one set of conditions), contender and metric, always in the order of the rounds, so that a ratio can
be taken within a round, between two measurements that were made seconds apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure. `shown`: in the table for people; the JSON has all."""

    key: str
    title: str
    unit: str
    less_is_better: bool = False
    shown: bool = True


def _less(key: str, title: str, unit: str, *, shown: bool = True) -> Metric:
    return Metric(key, title, unit, less_is_better=True, shown=shown)


METRICS: Final = {
    metric.key: metric
    for metric in (
        Metric("tcp1_up", "TCP, one flow, host to pod", "Gbit/s"),
        Metric("tcp1_down", "TCP, one flow, pod to host", "Gbit/s"),
        Metric("tcp8_up", "TCP, eight flows, host to pod", "Gbit/s"),
        Metric("tcp8_down", "TCP, eight flows, pod to host", "Gbit/s"),
        Metric("udp64", "UDP of 64 bytes, delivered", "packets/s"),
        Metric("udp1400", "UDP of 1400 bytes, delivered", "packets/s"),
        Metric("rr", "TCP request/response, 1 byte", "per s"),
        _less("rtt", "round trip", "us"),
        _less("rtt_added", "round trip, added", "us"),
        _less("cpu_up", "CPU, host to pod", "s/GB"),
        _less("cpu_down", "CPU, pod to host", "s/GB"),
        _less("cpu_up_user", "of it the tunnel's processes, user", "s/GB", shown=False),
        _less("cpu_up_system", "of it the tunnel's processes, system", "s/GB", shown=False),
        _less("cpu_up_softirq", "of it softirq, whole machine", "s/GB", shown=False),
        _less("cpu_down_user", "of it the tunnel's processes, user", "s/GB", shown=False),
        _less("cpu_down_system", "of it the tunnel's processes, system", "s/GB", shown=False),
        _less("cpu_down_softirq", "of it softirq, whole machine", "s/GB", shown=False),
        _less("rss_near", "resident memory, appliance's end", "MiB"),
        _less("pss_near", "the same, shared parts split (PSS)", "MiB"),
        _less("rss_far", "resident memory, far end", "MiB"),
        _less("pss_far", "the same, shared parts split (PSS)", "MiB"),
        Metric("early", "goodput at the start", "Mbit/s"),
        Metric("late", "goodput once settled", "Mbit/s"),
        _less("ping_idle", "median ping, line idle", "ms", shown=False),
        _less("ping_loaded", "median ping beside the bulk flow", "ms"),
        _less("ping_ratio", "ping loaded / idle", "x"),
        _less("connect_idle", "median TCP connect, line idle", "ms", shown=False),
        _less("connect_loaded", "median TCP connect beside the bulk flow", "ms"),
        _less("connect_ratio", "TCP connect loaded / idle", "x"),
        _less("first_packet", "from POST /v1/cidrs to the first packet through", "ms"),
        _less("all_applied", "many CIDRs in the kernel, all", "s"),
        _less("one_more", "one CIDR more in the kernel", "ms"),
        _less("idle_pass", "CPU of a pass without change", "ms"),
        Metric("flow_one", "TCP, one flow, with one CIDR", "Gbit/s"),
        Metric("flow_many", "TCP, one flow, with many CIDRs", "Gbit/s"),
        Metric("offered_kept", "of 1 Gbit/s offered, delivered beside 50 requests/s", "x"),
        _less("requests_failed", "requests that failed", ""),
        _less("slowest_request", "the slowest request", "ms"),
    )
}

ByMetric = dict[str, list[float | None]]


@dataclass(slots=True)
class Section:
    """One topology under one set of conditions, and what was read there: contender, metric, rounds."""

    name: str
    title: str
    readings: dict[str, ByMetric] = field(default_factory=dict)

    def add(self, contender: str, figures: dict[str, float], expected: Iterable[str]) -> None:
        """Append one round of one contender. What was `expected` and has no figure is a failed reading."""
        mine = self.readings.setdefault(contender, {})
        for metric in {**figures, **dict.fromkeys(expected)}:
            mine.setdefault(metric, []).append(figures.get(metric))

    def of(self, contender: str, metric: str) -> list[float | None]:
        """Return the rounds of one figure, none where it was not measured."""
        return self.readings.get(contender, {}).get(metric, [])


def derive(section: Section, baseline: str) -> None:
    """Add what follows from the readings: the round trip that each contender adds to the `baseline`'s, in microseconds.

    Pairs are within a round. On a noisy machine a difference can be negative; it stays so.
    """
    bare = section.of(baseline, "rtt")
    for contender, figures in section.readings.items():
        if contender != baseline and "rtt" in figures:
            figures["rtt_added"] = [
                mine - base if mine is not None and base is not None else None
                for mine, base in zip(figures["rtt"], bare, strict=False)
            ]
