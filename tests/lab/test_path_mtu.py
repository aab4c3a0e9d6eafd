"""A link somewhere on the way that takes less than a full packet: the host is told, and transfers go on."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

import pytest

from tests.lab import control, probes, topology
from tests.lab.programs import LINK
from tests.lab.space import Failed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.lab import Lab

pytestmark = pytest.mark.lab

SOAK: Final = os.environ.get("NEXTHOP_SOAK") == "1"
POD = topology.PODS["pod1"]
SIZE = 4 << 20
NARROW = 1280
FAR_ROUTER = "172.31.1.253"  # outside every CIDR that the appliance carries


@pytest.fixture(autouse=True)
def big_page(joined_lab: Lab) -> Iterator[None]:
    """Give pod1 something to download."""
    page = joined_lab.place("pod1") / "html" / "big"
    page.write_bytes(bytes(SIZE))
    yield
    page.unlink()


def set_mtu(lab: Lab, ends: dict[str, str], mtu: int) -> None:
    for machine, device in ends.items():
        lab[machine].shell(f"ip link set {device} mtu {mtu}")


@pytest.fixture
def far_link(joined_lab: Lab) -> Iterator[None]:
    """Narrow the link behind gtund's router."""
    ends = {"hkrouter": "vsw-node", "node": "eth0"}
    set_mtu(joined_lab, ends, NARROW)
    yield
    set_mtu(joined_lab, ends, 1500)
    for machine in ("host1", "pod1", "gtund"):
        joined_lab[machine].shell("ip route flush cache")


@pytest.fixture
def wan(joined_lab: Lab) -> Iterator[None]:
    """Narrow the Internet between the tunnel's ends."""
    ends = {"wan": "hongkong", "hkrouter": "wan0"}
    set_mtu(joined_lab, ends, NARROW)
    yield
    set_mtu(joined_lab, ends, 1500)
    for machine in ("appliance", "gtund"):
        joined_lab[machine].shell("ip route flush cache")
    renew(joined_lab, "hybrid")


@pytest.fixture
def silent(joined_lab: Lab, wan: None) -> Iterator[None]:
    """Have nobody tell UDP that the Internet is narrow."""
    quoted_udp = "icmp type destination-unreachable icmp code frag-needed @th,136,8 17 drop"
    rules = f"table ip silent {{\n chain silent {{ type filter hook output priority 0; {quoted_udp}; }}\n}}"
    machines = ("wan", "hkrouter")
    for machine in machines:
        joined_lab[machine].run("nft", "-f", "-", stdin=rules)
    yield
    for machine in machines:
        joined_lab[machine].run("nft", "delete", "table", "ip", "silent")


def renew(lab: Lab, channel: str) -> None:
    """Have the link begin anew, with this channel."""
    file = lab.place("appliance") / "state" / "links" / f"{LINK}.toml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("channel")]
    file.write_text("\n".join([*lines, f'channel = "{channel}"', ""]))
    before = lab.link()["since"]
    lab.kill("appliance", f"gtun@{LINK}")
    lab.wait("the link", lambda: (now := lab.link())["state"] == "up" and now["since"] != before)
    probes.ping(lab["host1"], POD, count=1)


def download(lab: Lab) -> int:
    """Return how many bytes of the page arrived at the host."""
    done = lab["host1"].run("curl", "-sS", "-m", "20", "-o", "/dev/null", "-w", "%{size_download}", f"http://{POD}/big")
    return int(done.stdout)


def test_a_far_routers_word_that_a_packet_is_too_large_reaches_the_host(joined_lab: Lab, far_link: None) -> None:
    done = joined_lab["host1"].run("ping", "-n", "-c", "2", "-i", "0.2", "-M", "do", "-s", "1472", POD, check=False)
    assert re.search(rf"{re.escape(FAR_ROUTER)} .*Frag needed and DF set \(mtu = {NARROW}\)", done.stdout), done.stdout
    probes.ping(joined_lab["host1"], POD, size=NARROW - 28, df=True)


@pytest.mark.parametrize("channel", ["stream", "hybrid"])
def test_a_download_through_a_narrow_far_link_is_whole(joined_lab: Lab, far_link: None, channel: str) -> None:
    renew(joined_lab, channel)
    assert download(joined_lab) == SIZE


@pytest.mark.parametrize("channel", ["stream", "datagram", "hybrid"] if SOAK else ["stream", "hybrid"])
def test_a_narrow_line_between_the_ends_costs_no_packet_size(joined_lab: Lab, wan: None, channel: str) -> None:
    renew(joined_lab, channel)
    joined_lab.wait("full packets", lambda: _full(joined_lab))
    assert download(joined_lab) == SIZE


def test_a_narrow_line_that_nobody_tells_of_is_found_out(joined_lab: Lab, silent: None) -> None:
    renew(joined_lab, "hybrid")  # whose datagrams carry what is not TCP
    joined_lab.wait("full packets", lambda: _full(joined_lab), limit=60)
    channel = control.gtun(joined_lab)["channels"]["datagram"]
    assert channel["mtu"] == NARROW
    assert control.gtun(joined_lab)["counters"]["path_mtu_lowered"] == 3


def _full(lab: Lab) -> bool:
    try:
        return probes.ping(lab["host1"], POD, size=1472, df=True) > 0
    except Failed:
        return False
