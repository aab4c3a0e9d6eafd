"""Nested CIDRs of different kinds as prefixes that do not overlap. Pure.

"The most specific CIDR counts" is an order, and a set has none: where a /16 of one kind lies in a /8 of another, the /8
becomes the eight prefixes that remain of it. What lies in a CIDR of its own kind is in its set already. No prefix
is shorter than /1, since a hash:net set holds no /0.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Final, TypeVar

from appliance.kernel.state import Network

_V4: Final = 4
Prefix = tuple[int, int]
"""First address, length."""
Kind = TypeVar("Kind", bound=Hashable)


def disjoint(kinds: Mapping[Network, Kind], bits: int) -> dict[Kind, frozenset[Prefix]]:
    """Return, by kind, the prefixes of the addresses whose most specific CIDR is of that kind. `bits`: 32 or 128."""
    found: dict[Kind, list[Prefix]] = {}
    around: list[tuple[Prefix, Kind, list[Prefix]]] = []  # who contains whom, each with the holes in it so far

    def close() -> None:
        prefix, kind, holes = around.pop()
        found.setdefault(kind, []).extend(_without(prefix, holes, bits))

    everything = [((int(network.network_address), network.prefixlen), kind) for network, kind in kinds.items()]
    for prefix, kind in sorted(everything, key=lambda each: each[0]):  # a container before what it contains
        while around and not _contains(around[-1][0], prefix, bits):
            close()
        if around and around[-1][1] == kind:
            continue
        if around:
            around[-1][2].append(prefix)
        around.append((prefix, kind, []))
    while around:
        close()
    return {kind: frozenset(prefixes) for kind, prefixes in found.items() if prefixes}


def _contains(outer: Prefix, inner: Prefix, bits: int) -> bool:
    return outer[1] <= inner[1] and outer[0] >> (bits - outer[1]) == inner[0] >> (bits - outer[1])


def _without(prefix: Prefix, holes: Sequence[Prefix], bits: int) -> Iterator[Prefix]:
    """Yield what is left of a prefix. `holes`: prefixes within it."""
    if prefix in holes:
        return
    if not holes and prefix[1] > 0:
        yield prefix
        return
    address, length = prefix[0], prefix[1] + 1
    for half in ((address, length), (address + (1 << (bits - length)), length)):
        yield from _without(half, [hole for hole in holes if _contains(half, hole, bits)], bits)


def network_of(prefix: Prefix, version: int) -> Network:
    """Return a prefix as a network."""
    return IPv4Network(prefix) if version == _V4 else IPv6Network(prefix)
