"""What gtund's machine forwards: only between its clients and the prefixes that it serves.

It masquerades towards what it serves, so that no node, pod or router there needs a route to the tunnel's addresses (a
cloud would refuse one in 100.64.0.0/10). The rules are one nftables table of our own, replaced in one transaction, gone
with `remove`. A client reaches what is served and other clients: not this machine, its metadata service or its ports.
"""

from __future__ import annotations

import subprocess
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

TABLE: Final = "ip nexthop_gtund"
DEVICES: Final = "gt-*"

_RULES: Final = """\
table {table}
delete table {table}
table {table} {{
    set served {{
        type ipv4_addr; flags interval
        elements = {{ {served} }}
    }}
    chain input {{
        type filter hook input priority filter - 10; policy accept;
        iifname "{devices}" ct state established,related accept
        iifname "{devices}" icmp type echo-request ip daddr {gateway} accept
        iifname "{devices}" counter drop comment "clients do not reach this machine"
    }}
    chain output {{
        type filter hook output priority filter - 10; policy accept;
        oifname "{devices}" icmp type redirect drop comment "clients that share a device talk to each other through us"
    }}
    chain forward {{
        type filter hook forward priority filter - 10; policy accept;
        oifname "{devices}" ct state invalid counter drop comment "it would leave without translation"
        iifname "{devices}" oifname "{devices}" accept
        iifname "{devices}" ip daddr != @served ct state != {{ established, related }} counter drop comment "not served"
        iifname "{devices}" tcp flags syn / syn,rst tcp option maxseg size set rt mtu
        oifname "{devices}" tcp flags syn / syn,rst tcp option maxseg size set rt mtu
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat - 10; policy accept;
        {masquerade}
    }}
}}
"""


class FirewallRefused(Exception):
    """The rules could not be set; the message says why."""


def render(
    subnet: IPv4Network,
    gateway: str,
    served: tuple[IPv4Network, ...],
    *,
    snat: bool,
    table: str = TABLE,
    devices: str = DEVICES,
) -> str:
    """Return the whole rule set as text for ``nft -f``; `devices` is a name, or a pattern that ends in ``*``."""
    return _RULES.format(
        table=table,
        devices=devices,
        gateway=gateway,
        served=", ".join(str(network) for network in served),
        masquerade=f'ip saddr {subnet} ip daddr @served oifname != "{devices}" masquerade' if snat else "",
    )


def apply(rules: str) -> None:
    """Replace our table by `rules`, in one transaction."""
    try:
        done = subprocess.run(["nft", "-f", "-"], input=rules, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise FirewallRefused("nft is missing: install the package nftables") from None
    if done.returncode:
        raise FirewallRefused(f"nft refused the rules: {done.stderr.strip()}")


def remove(table: str = TABLE) -> None:
    """Remove our table; none there is no error."""
    subprocess.run(["nft", "delete", "table", *table.split()], check=False, capture_output=True)


def forward_packets() -> None:
    """Let the kernel forward, which is what this machine is for."""
    setting = Path("/proc/sys/net/ipv4/ip_forward")
    if setting.read_text().strip() != "1":
        setting.write_text("1")
