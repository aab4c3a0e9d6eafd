"""The short topologies: rounds of every measurement, the contenders in turn within each."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, TypeVar

from tests.bench import measure, usage
from tests.lab.space import Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.metrics import Section
    from tests.bench.plan import Local
    from tests.bench.topology import Net
    from tests.bench.tunnels import Tunnel

T = TypeVar("T")
Figures = dict[str, float]
Step = tuple[str, "Callable[[Tunnel], Figures]"]


def run(net: Net, pod: measure.Pod, tunnels: Sequence[Tunnel], plan: Local, section: Section) -> list[str]:
    """Measure all rounds into `section`; return what failed, for people."""
    failures: list[str] = []
    todo = steps(net, plan)
    for number in range(plan.rounds):
        figures: dict[str, Figures] = {tunnel.contender.key: {} for tunnel in tunnels}
        for name, step in todo:
            for tunnel in turned(tunnels, number):
                try:
                    figures[tunnel.contender.key].update(step(tunnel))
                except (Failed, subprocess.TimeoutExpired, ValueError, KeyError) as error:
                    failures.append(f"{section.name}: {tunnel.contender.title}: {name}: {error}")
                    pod.start_iperf()
        for tunnel in tunnels:
            section.add(tunnel.contender.key, figures[tunnel.contender.key] | weigh(tunnel), plan.expected)
    return failures


def turned(tunnels: Sequence[T], number: int) -> Sequence[T]:
    """Return them in the order of one round: each round another one begins."""
    first = number % len(tunnels)
    return [*tunnels[first:], *tunnels[:first]]


def weigh(tunnel: Tunnel) -> Figures:
    """Return what the tunnel's processes at both ends occupy."""
    figures: Figures = {}
    for side, space in (("near", tunnel.near), ("far", tunnel.far)):
        resident, proportional = usage.memory(space)
        if resident:
            figures |= {f"rss_{side}": resident, f"pss_{side}": proportional}
    return figures


def steps(net: Net, plan: Local) -> list[Step]:
    """Return the measurements of one round."""
    todo: list[Step] = [(key, _tcp(net, key, plan.tcp_seconds)) for key in plan.tcp]
    todo += [(key, _udp(net, key, plan.udp_seconds)) for key in plan.udp]
    if plan.rr_seconds:
        todo.append(("rr", lambda one: {"rr": measure.request_response(net, one.path, plan.rr_seconds)}))
    if plan.pings:
        todo.append(("rtt", lambda one: {"rtt": 1000 * measure.ping(net, one.path, plan.pings, 0.005)}))
    return todo


def _tcp(net: Net, key: str, seconds: float) -> Callable[[Tunnel], Figures]:
    direction = key.partition("_")[2]
    flows = int(key.removeprefix("tcp").partition("_")[0])

    def step(tunnel: Tunnel) -> Figures:
        congestion = tunnel.contender.congestion
        rate, cost = measure.tcp(
            net, tunnel.path, flows=flows, down=direction == "down", seconds=seconds, congestion=congestion
        )
        if flows > 1:
            return {key: rate}
        parts = {f"cpu_{direction}_{part}": value for part, value in cost.items()}
        return {key: rate, f"cpu_{direction}": sum(cost.values()), **parts}

    return step


def _udp(net: Net, key: str, seconds: float) -> Callable[[Tunnel], Figures]:
    size = int(key.removeprefix("udp"))
    return lambda one: {key: measure.udp(net, one.path, size, seconds)}
