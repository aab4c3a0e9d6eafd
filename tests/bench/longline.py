"""The long line: 115 ms there and back, 200 Mbit/s, and losses; what one flow gets there, and what that does to others.

Each measurement has the line for itself, and all contenders of a round meet the same losses: the relay is started anew
with the round's number as the seed. First ping and connect on the idle line; then one bulk flow from the host to the
pod, and, once it has settled, ping and connect again beside it: speed and latency come from the same run.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import TYPE_CHECKING, Final

from tests.bench import measure
from tests.bench.local import turned
from tests.bench.metrics import Section
from tests.bench.plan import wan
from tests.bench.stats import window
from tests.bench.topology import end
from tests.lab.space import PYTHON, Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.plan import Long
    from tests.bench.topology import Net
    from tests.bench.tunnels import Tunnel

ONE_WAY_MS: Final = 57.5
MBPS: Final = 200
_PING_EVERY: Final = 0.2
_CONNECT_EVERY: Final = 0.4
EXPECTED: Final = ("early", "late", "ping_loaded", "ping_ratio", "connect_loaded", "connect_ratio")


class Relay:
    """The line's length, width and losses."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._process: subprocess.Popen[str] | None = None

    def start(self, loss: float, seed: int) -> None:
        """Start relaying, instead of what was there before."""
        if self._process is not None:
            end(self._process)
        line = ("--delay-ms", ONE_WAY_MS, "--mbps", MBPS, "--loss", loss, "--seed", seed)
        self._process = self._net.start(
            self._net["delay"], "relay", *PYTHON, "tests.lab.wan", "left", "right", *map(str, line)
        )


def run(
    net: Net, relay: Relay, tunnels: Sequence[Tunnel], plan: Long, tell: Callable[[str], None]
) -> tuple[list[Section], list[str]]:
    """Measure every loss; return a section for each, and what failed."""
    sections, failures = [], []
    early, late = (f"{begin:g}-{end:g} s" for begin, end in (plan.early, plan.late))
    for loss in plan.losses:
        title = f"{2 * ONE_WAY_MS:g} ms, {MBPS} Mbit/s, {loss * 100:g} % loss; start = {early}, settled = {late}"
        section = Section(wan(loss), title)
        sections.append(section)
        here = [one for one in tunnels if one.contender.takes_part(section.name)]
        for number in range(plan.rounds):
            for tunnel in turned(here, number):
                if tunnel.contender.key in plan.others and (number >= plan.peer_rounds or loss != plan.losses[0]):
                    continue
                tell(f"{section.name}: round {number + 1} of {plan.rounds}: {tunnel.contender.title}")
                figures: dict[str, float] = {}
                try:
                    relay.start(loss, seed=number + 1)
                    tunnel.wait_for_ping()
                    figures = one(net, tunnel, plan)
                except (Failed, subprocess.TimeoutExpired, ValueError, KeyError) as error:
                    failures.append(f"{section.name}: {tunnel.contender.title}: {error}")
                section.add(tunnel.contender.key, figures, EXPECTED)
    return sections, failures


def one(net: Net, tunnel: Tunnel, plan: Long) -> dict[str, float]:
    """Measure one contender once: about the end of the late window plus the idle part, in seconds."""
    host, path = net["host"], tunnel.path
    idle_ping = measure.ping(net, path, plan.idle_pings, _PING_EVERY)
    idle_connect = measure.connects(net, path, plan.idle_connects)
    begin, stop = plan.late
    seconds = stop - begin - 1
    bulk = measure.traffic_command("bulk", path, "--seconds", stop, "--congestion", tunnel.contender.congestion)
    pings = ("ping", "-n", "-c", str(int(seconds / _PING_EVERY)), "-i", str(_PING_EVERY), path.pod)
    connects = measure.traffic_command(
        "connect", path, "--count", 1000, "--seconds", seconds, "--pause", _CONNECT_EVERY
    )
    with contextlib.ExitStack() as stack:
        flow = stack.enter_context(measure.background(host, *bulk))
        time.sleep(begin)
        pinging = stack.enter_context(measure.background(host, *pings))
        connecting = stack.enter_context(measure.background(host, *connects))
        connect = measure.connected(measure.answer(connecting, seconds + 20))
        ping = measure.pinged(measure.answer(pinging, seconds + 20))
        marks = measure.arrived(measure.answer(flow, stop + 30))
    rates = {part: window(marks, *limits) for part, limits in (("early", plan.early), ("late", plan.late))}
    return {
        **{part: rate / 1e6 for part, rate in rates.items() if rate is not None},
        "ping_idle": idle_ping,
        "ping_loaded": ping,
        "ping_ratio": ping / idle_ping,
        "connect_idle": idle_connect,
        "connect_loaded": connect,
        "connect_ratio": connect / idle_connect,
    }
