"""Who may send what: the source address of every packet that comes out of the tunnel is looked at. Pure.

This is not left to rp_filter: the greater of its `all` and per-device values wins, distributions differ in both, IPv6
has none, and strict mode would drop the ICMP of far routers that path MTU discovery and traceroute live on.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

Prefix = IPv4Network | IPv6Network


class Sources:
    """The prefixes that a peer may send from. Every address is allowed when there are none."""

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        self._any = True
        self._hosts: set[bytes] = set()
        self._networks: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for prefix in prefixes:
            self._any = False
            if prefix.prefixlen == prefix.max_prefixlen:
                self._hosts.add(prefix.network_address.packed)
            else:
                self._networks[prefix.version].append((int(prefix.network_address), int(prefix.netmask)))

    def permit(self, packet: memoryview) -> bool:
        """Return whether the packet, IPv4 or IPv6 by its first half-byte, may come from this peer."""
        if self._any:
            return True
        version = packet[0] >> 4
        source = bytes(packet[12:16] if version == 4 else packet[8:24])
        if source in self._hosts:
            return True
        address = int.from_bytes(source)
        return any(address & mask == network for network, mask in self._networks.get(version, ()))
