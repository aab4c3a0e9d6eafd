"""In which subnets a client takes an address from its server, and in which it does not. Pure.

The far end of a tunnel is a stranger (docs/decisions/0009): an address brings the route to its whole subnet, and one
chosen well would bring the cloud's metadata service, a name server, or half of this machine's own network into the
tunnel. So a subnet is a tunnel's own: small, nobody's on the Internet, nowhere that no tunnel may lead, and without the
server that we speak to. Whether this machine uses it otherwise is for the kernel to say (`tun.occupied`).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

from .closed import CLOSED, CLOSED6

_WIDEST: Final = {4: 16, 6: 48}
"""Bits of the prefix, by the version of IP."""

_CLOUD: Final = "100.100.0.0/16"
"""Of the cloud's own range, which tunnels share with it: where its name servers, mirrors and APIs are."""

_CLOSED: Final = tuple(map(ip_network, (*CLOSED, *CLOSED6, _CLOUD)))

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def objection(network: Network, server: Address | None = None, gateway: IPv4Address | None = None) -> str | None:
    """Return what speaks against taking an address in this subnet, for people; None if nothing does.

    `server`: where the tunnel's packets themselves go; `gateway`: the server's own address in the subnet, if it told.
    """
    if network.prefixlen < _WIDEST[network.version]:
        return f"a tunnel's subnet may not be wider than /{_WIDEST[network.version]}"
    for closed in _CLOSED:
        if network.version == closed.version and network.overlaps(closed):
            return f"it overlaps {closed}, where no tunnel may lead"
    if isinstance(network, IPv4Network) and network.is_global:
        return "it belongs to somebody on the Internet"
    if server is not None and server in network:
        return f"the tunnel's own server, {server}, lies in it"
    if gateway is not None and gateway not in network:
        return f"its gateway, {gateway}, does not lie in it"
    return None
