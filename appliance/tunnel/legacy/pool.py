"""The addresses that a server gives out. Pure.

As in gtun 2.0.2 the pool begins at the address that stands in `cidr`, the gateway is not given out, a free one is
picked at random and comes back when the connection ends. Unlike there it ends with its network, whose own address and
broadcast are nobody's; and whoever comes back finds the address that it had, if that is free: the protocol has no name
for a client, so it goes by where it connects from.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Interface


class PoolEmpty(Exception):
    """Every address is in use."""


class Pool:
    """The free addresses of `cidr`. `choose` picks one of several."""

    def __init__(
        self,
        cidr: IPv4Interface,
        gateway: IPv4Address,
        choose: Callable[[Sequence[IPv4Address]], IPv4Address] = secrets.choice,
    ) -> None:
        network = cidr.network
        ends = {network.network_address, network.broadcast_address, gateway}
        numbers = range(int(cidr.ip), int(network.broadcast_address))
        self._free = [address for number in numbers if (address := IPv4Address(number)) not in ends]
        self._holders: dict[IPv4Address, str] = {}
        self._choose = choose

    def __len__(self) -> int:
        return len(self._free)

    def take(self, holder: str) -> IPv4Address:
        """Return an address that nobody has; raise `PoolEmpty`."""
        if not self._free:
            raise PoolEmpty
        before = (address for address in reversed(self._free) if self._holders.get(address) == holder)
        address = next(before, None) or self._choose(self._free)
        self._free.remove(address)
        self._holders[address] = holder
        return address

    def give(self, address: IPv4Address) -> None:
        """Take back an address that `take` returned."""
        self._free.append(address)
