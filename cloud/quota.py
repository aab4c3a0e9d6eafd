"""How full a route table is, and how fewer entries could say the same. Pure.

A table takes so many custom entries, 200 by default (VPC help, "Limits and quotas"). We stop before the cloud does,
and where others use the table, too, a reserve stays free for them: we must not be why somebody else's route fails.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from cloud.provider import Network, Owner, Quota, RouteEntry


@dataclass(frozen=True, slots=True)
class Fill:
    """One table: `ours` and `others` count custom entries, `free` is what we may still add."""

    table: str
    ours: int
    others: int
    limit: int
    reserve: int

    @property
    def free(self) -> int:
        """How many entries we may add."""
        return max(0, self.limit - self.ours - self.others - (self.reserve if self.others else 0))


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Several CIDRs that are together exactly one."""

    network: Network
    parts: tuple[Network, ...]


def fill(table: str, entries: Iterable[RouteEntry], quota: Quota) -> Fill:
    """Count what a table holds."""
    custom = [entry.owner for entry in entries if entry.table == table and entry.owner is not Owner.SYSTEM]
    ours = sum(owner is Owner.OURS for owner in custom)
    return Fill(table, ours, len(custom) - ours, quota.limit, quota.reserve)


def aggregates(networks: Collection[Network]) -> tuple[Aggregate, ...]:
    """Return the groups of `networks` that one CIDR could stand for, with not one address more or less."""
    found: list[Aggregate] = []
    fours = [each for each in networks if isinstance(each, IPv4Network)]
    sixes = [each for each in networks if isinstance(each, IPv6Network)]
    wholes: list[Network] = [*collapse_addresses(fours)]
    wholes += collapse_addresses(sixes)
    for whole in wholes:
        parts = sorted((each for each in networks if _within(each, whole)), key=_order)
        if len(parts) > 1:
            found.append(Aggregate(whole, tuple(parts)))
    return tuple(found)


def advice(networks: Collection[Network]) -> str:
    """Say which aggregates there are, or nothing."""
    told = [f"{each.network} is exactly {', '.join(map(str, each.parts))}" for each in aggregates(networks)]
    return "; ".join(told)


def _within(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.prefixlen >= outer.prefixlen and inner.overlaps(outer)


def _order(network: Network) -> tuple[int, int]:
    return int(network.network_address), network.prefixlen
