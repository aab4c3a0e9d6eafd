"""A line of 115 ms that loses every fifth packet, in both directions: the link stays up."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.bench.longline import Relay
from tests.bench.topology import Net
from tests.bench.tunnels import Tunnel
from tests.lab.test_flood import HYBRID

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.lab

LOSS: Final = 0.2
SECONDS: Final = 600 if "NEXTHOP_SOAK" in os.environ else 8


@pytest.fixture
def tunnel() -> Iterator[Tunnel]:
    with Net.open([HYBRID.key], delay=True) as net:
        relay = Relay(net)
        relay.start(0.0, seed=1)
        made = Tunnel(net, net.paths[HYBRID.key], HYBRID)
        made.up()
        relay.start(LOSS, seed=1)
        yield made


def state(tunnel: Tunnel) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tunnel.place / "gtun.sock"))
        sock.shutdown(socket.SHUT_WR)
        return dict(json.loads(sock.makefile().read()))


def test_a_line_that_loses_a_fifth_makes_no_link_flap(tunnel: Tunnel) -> None:
    since = state(tunnel)["since"]
    ping = ("ping", "-n", "-q", "-i", "0.5", "-c", str(SECONDS * 2), tunnel.path.pod)
    done = tunnel.net["host"].start("ping", *ping, stdout=subprocess.PIPE)
    said, _ = done.communicate(timeout=SECONDS + 60)
    now = state(tunnel)
    assert (now["state"], now["since"]) == ("up", since)
    lost = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    assert lost, said
    assert int(lost[2]) < int(lost[1])  # the line did lose
    assert int(lost[2]) > 0
