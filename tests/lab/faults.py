"""What somebody may do to the appliance from outside, and traffic that runs meanwhile.

A fault is a shell script, and a second one that fails unless the damage is done: a fault that did not happen proves
nothing. Both run while the daemon and gtun are stopped, so that nobody can have repaired it in between.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from appliance.kernel import ipset
from tests.lab import topology
from tests.lab.programs import LINK
from tests.lab.space import Failed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.lab import Lab

DEVICE: Final = "tun-hk"
POD_CIDR: Final = topology.POD_CIDR
_FORWARD_CHAIN: Final = "NEXTHOP-FORWARD"


@dataclass(frozen=True, slots=True)
class Fault:
    """`kinds`: what is counted as repaired, at least. `chained`: the back-end whose rules it is about, "" for any."""

    name: str
    script: str
    kinds: tuple[str, ...]
    backend: str = ""

    def __str__(self) -> str:
        return self.name


def _absent(listing: str, mark: str) -> str:
    return f"! {listing} 2>/dev/null | grep -q -- '{mark}'\n"


_ROUTE: Final = f"ip route del {POD_CIDR} dev {DEVICE}\n" + _absent(f"ip route show {POD_CIDR}", DEVICE)
_BEHIND: Final = f"ip route del unreachable {POD_CIDR}\n" + _absent(f"ip route show type unreachable {POD_CIDR}", ".")
_ADDRESS: Final = f"ip address flush dev {DEVICE}\n" + _absent(f"ip -4 address show dev {DEVICE}", "inet")
_DOWN: Final = f"ip link set {DEVICE} down\n" + _absent(f"ip link show {DEVICE}", ",UP")
_TUN: Final = f"ip link del {DEVICE}\n" + _absent("ip link", f"{DEVICE}:")
_IP_FORWARD: Final = "echo 0 > /proc/sys/net/ipv4/ip_forward\n" + _absent("cat /proc/sys/net/ipv4/ip_forward", "1")
_RP_FILTER: Final = f"echo 1 > /proc/sys/net/ipv4/conf/{DEVICE}/rp_filter\n" + _absent(
    f"cat /proc/sys/net/ipv4/conf/{DEVICE}/rp_filter", "2"
)
# As a network manager does that starts anew: its own come back, ours it does not know.
_ALL_ROUTES: Final = (
    "ip -4 route flush table main\n"
    "ip -4 route flush type unreachable\n"
    + _absent(f"ip route show {POD_CIDR}", DEVICE)
    + "ip route add 172.18.2.0/24 dev eth0 src 172.18.2.10\nip route add default via 172.18.2.253\n"
)
_JUMP: Final = f"iptables-legacy -w -D FORWARD -m comment --comment nexthop -j {_FORWARD_CHAIN}\n" + _absent(
    "iptables-legacy -w -S FORWARD", _FORWARD_CHAIN
)
_CHAIN: Final = f"iptables-legacy -w -F {_FORWARD_CHAIN}\n" + _absent(
    f"iptables-legacy -w -S {_FORWARD_CHAIN}", "match-set"
)
_INPUT: Final = "iptables-legacy -w -F NEXTHOP-INPUT\n" + _absent("iptables-legacy -w -S NEXTHOP-INPUT", "DROP")
_NFT_INPUT: Final = "nft flush chain inet nexthop input\n" + _absent("nft list chain inet nexthop input", "drop")
_ALL_CHAINS: Final = "".join(
    f"iptables-legacy -w -t {table} -F\niptables-legacy -w -t {table} -X\n"
    + _absent(f"iptables-legacy -w -t {table} -S", "NEXTHOP")
    for table in ("filter", "nat", "mangle")
)
_NFT_RULE: Final = "nft flush chain inet nexthop forward\n" + _absent("nft list chain inet nexthop forward", "accept$")
_NFT_CHAIN: Final = "nft 'flush chain inet nexthop postrouting; delete chain inet nexthop postrouting'\n" + _absent(
    "nft list table inet nexthop", "masquerade"
)
_NFT_ALL: Final = "nft flush ruleset\n" + _absent("nft list ruleset", "nexthop")
_IPSET: Final = f"{sys.executable} -c 'from appliance.kernel import ipset; name = \"nexthop4-{DEVICE}-s\"; {{}}'\n"
_SET: Final = _IPSET.format("ipset.remove(name, ipset.members(name)); assert not ipset.members(name)")
_NFT_SET: Final = f"nft flush set inet nexthop nexthop4-{DEVICE}-s\n" + _absent(
    f"nft list set inet nexthop nexthop4-{DEVICE}-s", POD_CIDR
)
_NFT_ELEMENT: Final = f"nft 'delete element inet nexthop nexthop4-{DEVICE}-s {{ {POD_CIDR} }}'\n" + _absent(
    f"nft list set inet nexthop nexthop4-{DEVICE}-s", POD_CIDR
)

FAULTS: Final = (
    Fault("the route", _ROUTE, ("route",)),
    Fault("what answers unreachable", _BEHIND, ("unreachable",)),
    Fault("the address", _ADDRESS, ("address", "route")),
    Fault("the device is set down", _DOWN, ("device-down", "route")),
    Fault("the TUN device", _TUN, ("device", "route")),
    Fault("ip_forward", _IP_FORWARD, ("sysctl",)),
    Fault("rp_filter", _RP_FILTER, ("sysctl",)),
    Fault("all routes", _ALL_ROUTES, ("route", "unreachable")),
    Fault("the jump", _JUMP, ("firewall",), "iptables"),
    Fault("the chain's rules", _CHAIN, ("firewall",), "iptables"),
    Fault("what guards the appliance", _INPUT, ("firewall",), "iptables"),
    Fault("what is in a set", _SET, ("firewall",), "iptables"),
    Fault("all of iptables", _ALL_CHAINS, ("firewall",), "iptables"),
    Fault("the rules of a chain", _NFT_RULE, ("firewall",), "nftables"),
    Fault("a chain", _NFT_CHAIN, ("firewall",), "nftables"),
    Fault("what guards the appliance", _NFT_INPUT, ("firewall",), "nftables"),
    Fault("what is in a set", _NFT_SET, ("firewall",), "nftables"),
    Fault("a CIDR of a set", _NFT_ELEMENT, ("firewall",), "nftables"),
    Fault("nft's whole ruleset", _NFT_ALL, ("firewall",), "nftables"),
    Fault(
        "all together",
        _ALL_CHAINS + _ALL_ROUTES + _IP_FORWARD + _TUN,
        ("firewall", "unreachable", "sysctl", "device"),
        "iptables",
    ),
    Fault(
        "all together",
        _NFT_ALL + _ALL_ROUTES + _IP_FORWARD + _TUN,
        ("firewall", "unreachable", "sysctl", "device"),
        "nftables",
    ),
)


def inject(lab: Lab, fault: Fault) -> None:
    """Do it, and see that it is done: nobody who would repair it moves meanwhile."""
    pids = [lab.unit("appliance", unit).pid for unit in ("nexthopd", "nexthop-forward", f"gtun@{LINK}")]
    try:
        for pid in filter(None, pids):
            os.kill(pid, signal.SIGSTOP)
        lab["appliance"].shell(fault.script)
    finally:
        for pid in filter(None, pids):
            os.kill(pid, signal.SIGCONT)


def rules(lab: Lab) -> str:
    """Return all firewall rules of the appliance as text, without their counters."""
    listed = lab["appliance"].shell(
        "iptables-legacy-save || echo it changes; ip6tables-legacy-save || echo it changes; nft list ruleset"
    )
    with ThreadPoolExecutor(1) as other:  # a thread may be in another namespace, and ends there
        listed += other.submit(_sets, lab["appliance"].full).result()
    return re.sub(r"\[\d+:\d+\]|counter packets \d+ bytes \d+|^#.*\n", "", listed, flags=re.MULTILINE)


def _sets(namespace: str) -> str:
    """Return what is in the ipsets of a namespace; a program for that would take too long to start."""
    with open(f"/run/netns/{namespace}") as there:  # noqa: PTH123
        if ctypes.CDLL(None).setns(there.fileno(), 0) != 0:
            raise Failed(f"cannot enter {namespace}")
    return "".join(f"{name} {sorted(ipset.members(name))}\n" for name in sorted(ipset.names(4)))


def routes(lab: Lab, *, protocol: str = "110") -> str:
    """Return the appliance's routes in the main table as text, sorted: ours, or those of another origin."""
    listed = lab["appliance"].shell(f"for v in 4 6; do ip -d -$v route show table main proto {protocol}; done")
    return "\n".join(sorted(listed.splitlines()))


def over(lab: Lab) -> bool:
    """Tell whether all is well again, but for the remark that somebody meddles, which is us."""
    found = lab.api("GET", "/v1/status")["findings"]
    return {each["code"] for each in found if each["level"] != "ok"} <= {"meddling"}


def repairs(lab: Lab) -> dict[str, int]:
    """Return how often the daemon repaired what."""
    return dict(lab.api("GET", "/v1/status")["drift_repairs"])


@contextlib.contextmanager
def traffic(lab: Lab, every: float = 0.02) -> Iterator[None]:
    """Let host1 ping a pod all the time; see afterwards that it was answered again before it ended."""
    host = lab["host1"]
    process = host.start("traffic", *("ping", "-n", "-i", str(every), topology.PODS["pod1"]), stdout=subprocess.PIPE)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=10)
    if " received" not in said or " 0 received" in said:
        raise Failed(f"nothing was answered during the fault: {said[-400:]}")
