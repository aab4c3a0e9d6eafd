"""Strangers by the thousand at gtund's door: who is in stays in, and who belongs in comes in."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from statistics import median
from typing import TYPE_CHECKING, Final

import pytest

from tests.bench import measure
from tests.bench.contenders import Contender, Kind
from tests.bench.topology import Net
from tests.bench.tunnels import Tunnel, link_toml, link_up, write_private
from tests.lab import ground
from tests.lab.space import PYTHON

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab

HYBRID: Final = Contender("hybrid", "hybrid", Kind.OURS, link={"channel": "hybrid"})
OURS, CLOSED = 9443, 9444
ROUNDS: Final = 5
SECONDS: Final = 8.0
ASKED: Final = {"datagrams": 10_000, "connections": 500, "handshakes": 100}
"""A second; what tests.lab.flood sends unless told otherwise."""


@pytest.fixture(scope="module")
def tunnel() -> Iterator[Tunnel]:
    with Net.open([HYBRID.key]) as net:
        # Many addresses live at the router in between, which is where the floods come from.
        net["line"].shell("ip route add local 198.51.0.0/16 dev lo")
        made = Tunnel(net, net.paths[HYBRID.key], HYBRID)
        made.up()
        yield made


@contextlib.contextmanager
def flood(tunnel: Tunnel, port: int, seconds: float) -> Iterator[subprocess.Popen[str]]:
    where = (tunnel.path.far_address, str(port), "--seconds", str(seconds), "--live", f"near-{tunnel.path.number}")
    process = tunnel.net["line"].start("flood", *PYTHON, "tests.lab.flood", *where, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def newcomer(tunnel: Tunnel, name: str) -> float:
    """Let a new client join, which never was here; return the seconds until its link is up."""
    near, control = tunnel.place / f"{name}.toml", tunnel.place / f"{name}.sock"
    write_private(near, link_toml(tunnel.add_client(name), name, {}))
    begin = time.monotonic()
    gtun = (*PYTHON, "appliance.tunnel.gtun", "--config", str(near), "--control", str(control))
    process = tunnel.start(tunnel.near, f"gtun-{name}", *gtun)
    tunnel.wait("the new client", lambda: link_up(control))
    took = time.monotonic() - begin
    process.kill()
    process.wait()
    del tunnel._processes[f"gtun-{name}"]
    return took


def test_a_flood_lets_clients_in_and_those_that_are_in_stay(tunnel: Tunnel) -> None:
    with flood(tunnel, OURS, 60) as process:
        newcomer(tunnel, "new")
        tunnel.wait_for_ping()
        assert process.poll() is None
    log = (ground.RUN / tunnel.net.lab / "log" / "hybrid-gtun.log").read_text()
    assert "is down" not in log


@pytest.mark.skipif("NEXTHOP_SOAK" not in os.environ, reason="it measures, for a minute: ./run soak")
def test_a_flood_leaves_existing_tunnels_four_fifths_and_new_clients_come_in_within_5_s(tunnel: Tunnel) -> None:
    rates: dict[int, list[float]] = {CLOSED: [], OURS: []}
    sent: dict[int, list[dict[str, int]]] = {CLOSED: [], OURS: []}
    joined = []
    measure.Pod(tunnel.net).start()
    for number in range(ROUNDS):
        for port in (CLOSED, OURS):
            with flood(tunnel, port, SECONDS + 2) as process:
                time.sleep(1)  # let it reach its rate; nothing is waited for
                rate, _ = measure.tcp(tunnel.net, tunnel.path, flows=1, down=True, seconds=SECONDS, congestion="cubic")
                rates[port].append(rate)
                sent[port].append(json.loads(measure.answer(process, 30)))
        with flood(tunnel, OURS, 30):
            joined.append(newcomer(tunnel, f"soak{number}"))
    # Of what was measured one after the other: the machine is not the same for minutes.
    ratios = [ours / closed for ours, closed in zip(rates[OURS], rates[CLOSED], strict=True)]
    ratio = median(ratios)
    tell(f"Gbit/s with the flood at a closed port {shown(rates[CLOSED])}, at gtund {shown(rates[OURS])}")
    tell(f"ratios {shown(ratios)}, median {ratio:.2f}; a new client came in after {shown(joined)} s")
    tell(f"sent at gtund in {SECONDS + 2:.0f} s: {sent[OURS]}")
    # Without what was asked for it was no such flood. A closed port takes no connections; datagrams come there, too.
    for asked, rate in ASKED.items():
        floods = sent[OURS] + (sent[CLOSED] if asked == "datagrams" else [])
        assert min(each[asked] for each in floods) >= 0.95 * rate * (SECONDS + 2), asked
    assert ratio >= 0.8
    assert max(joined) <= 5


def shown(values: list[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


def tell(figure: str) -> None:
    sys.stdout.write(f"{figure}\n")
