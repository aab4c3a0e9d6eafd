"""What gtund's machine forwards: only between its clients and the prefixes that it serves.

It masquerades towards what it serves, so that no node, pod or router there needs a route to the tunnel's addresses (a
cloud would refuse one in 100.64.0.0/10). The rules are one nftables table of our own, replaced in one transaction, gone
with `remove`. A client reaches what is served and other clients: not this machine, its metadata service or its ports,
and nothing that no router may carry, even where a served prefix is so wide that it covers that. What is refused is
counted for each device and reason, by the kernel.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from .closed import CLOSED, CLOSED6

Network = IPv4Network | IPv6Network

TABLE: Final = "inet nexthop_gtund"
DEVICES: Final = "gt-*"

_REASONS: Final = {"own": "drop_own_ports", "closed": "drop_closed", "unserved": "drop_not_served"}
"""Our sets of counters, and what they are called in a report."""

_RULES: Final = """\
table {table}
delete table {table}
table {table} {{
    set served {{ type ipv4_addr; flags interval; auto-merge; {served} }}
    set served6 {{ type ipv6_addr; flags interval; auto-merge; {served6} }}
    set closed {{ type ipv4_addr; flags interval; elements = {{ {closed} }} }}
    set closed6 {{ type ipv6_addr; flags interval; elements = {{ {closed6} }} }}
    set own_refused {{ type ifname; size 4096; flags dynamic; counter; }}
    set closed_refused {{ type ifname; size 4096; flags dynamic; counter; }}
    set unserved_refused {{ type ifname; size 4096; flags dynamic; counter; }}
    chain input {{
        type filter hook input priority filter - 10; policy accept;
        iifname "{devices}" ct state established,related accept
        iifname "{devices}" icmp type echo-request ip daddr {gateway} accept
        {ping6}
        iifname "{devices}" update @own_refused {{ iifname }}
        iifname "{devices}" drop comment "clients do not reach this machine"
    }}
    chain output {{
        type filter hook output priority filter - 10; policy accept;
        oifname "{devices}" icmp type redirect drop comment "clients that share a device talk to each other through us"
        oifname "{devices}" icmpv6 type nd-redirect drop
    }}
    chain closed {{
        update @closed_refused {{ iifname }}
        drop comment "nobody is routed there"
    }}
    chain unserved {{
        update @unserved_refused {{ iifname }}
        drop comment "not served"
    }}
    chain forward {{
        type filter hook forward priority filter - 10; policy accept;
        oifname "{devices}" ct state invalid counter drop comment "it would leave without translation"
        iifname "{devices}" ip daddr @closed jump closed
        iifname "{devices}" ip6 daddr @closed6 jump closed
        iifname "{devices}" oifname "{devices}" accept
        iifname "{devices}" ip daddr != @served ct state != {{ established, related }} jump unserved
        iifname "{devices}" ip6 daddr != @served6 ct state != {{ established, related }} jump unserved
        iifname "{devices}" tcp flags syn / syn,rst tcp option maxseg size set rt mtu
        oifname "{devices}" tcp flags syn / syn,rst tcp option maxseg size set rt mtu
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat - 10; policy accept;
        {masquerade}
        {masquerade6}
    }}
}}
"""


class FirewallRefused(Exception):
    """The rules could not be set; the message says why."""


@dataclass(frozen=True, slots=True)
class Zone:
    """What the rules are about: the tunnel's own addresses here, and what lies behind them."""

    gateway: str
    served: tuple[Network, ...]
    gateway6: str | None = None
    snat: bool = True
    table: str = TABLE
    devices: str = DEVICES
    """A name, or a pattern that ends in ``*``."""


def render(zone: Zone) -> str:
    """Return the whole rule set as text for ``nft -f``."""
    devices, out = zone.devices, f'iifname "{zone.devices}" oifname != "{zone.devices}"'
    ping6 = f'iifname "{devices}" icmpv6 type echo-request ip6 daddr {zone.gateway6} accept'
    return _RULES.format(
        table=zone.table,
        devices=devices,
        gateway=zone.gateway,
        ping6=ping6 if zone.gateway6 else "",
        served=_elements(zone.served, 4),
        served6=_elements(zone.served, 6),
        closed=", ".join(CLOSED),
        closed6=", ".join(CLOSED6),
        masquerade=f"{out} ip daddr @served masquerade" if zone.snat else "",
        masquerade6=f"{out} ip6 daddr @served6 masquerade" if zone.snat else "",
    )


def _elements(networks: Iterable[Network], version: int) -> str:
    found = ", ".join(str(network) for network in networks if network.version == version)
    return f"elements = {{ {found} }}" if found else ""


def apply(rules: str) -> None:
    """Replace our table by `rules`, in one transaction."""
    try:
        done = subprocess.run(["nft", "-f", "-"], input=rules, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise FirewallRefused("nft is missing: install the package nftables") from None
    if done.returncode:
        raise FirewallRefused(f"nft refused the rules: {done.stderr.strip()}")


def refused(table: str = TABLE) -> dict[str, dict[str, int]]:
    """Return for each device how many of its packets were refused, by reason, since the rules were set."""
    found: dict[str, dict[str, int]] = {}
    done = subprocess.run(
        ["nft", "--json", "list", "table", *table.split()], check=False, capture_output=True, text=True
    )
    if done.returncode:
        return found
    for item in json.loads(done.stdout)["nftables"]:
        name, _, kind = item.get("set", {}).get("name", "").partition("_")
        if kind != "refused":
            continue
        for element in item["set"].get("elem", ()):
            counted = element["elem"]
            found.setdefault(counted["val"], {})[_REASONS[name]] = counted["counter"]["packets"]
    return found


def remove(table: str = TABLE) -> None:
    """Remove our table; none there is no error."""
    subprocess.run(["nft", "delete", "table", *table.split()], check=False, capture_output=True)


def forward_packets(*, v6: bool = False) -> None:
    """Let the kernel forward, which is what this machine is for.

    A machine that forwards IPv6 takes router advertisements only where accept_ra is 2 (ip-sysctl.rst): where it was 1
    it becomes that first, so that the machine keeps the default route that it lives by.
    """
    _set(Path("/proc/sys/net/ipv4/ip_forward"), "1")
    if not v6:
        return
    for setting in Path("/proc/sys/net/ipv6/conf").glob("*/accept_ra"):
        if setting.read_text().strip() == "1":
            setting.write_text("2")
    _set(Path("/proc/sys/net/ipv6/conf/all/forwarding"), "1")


def _set(setting: Path, value: str) -> None:
    if setting.read_text().strip() != value:
        setting.write_text(value)
