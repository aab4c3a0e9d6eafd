"""Disk, kernel and cloud in memory that are looked at in the moment of each write; see `test_machine.py` for I1 to I5.

What does not hold is noted rather than raised: in the middle of a pass an exception would be caught, and mended.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Final

from appliance.intent import IntentStore, StoreUnavailable
from appliance.intentreader import IntentReader
from appliance.kernel.rules import Rules
from appliance.kernel.state import Network, Route
from appliance.model import Intent
from cloud.provider import CloudError, Duplicate, Owner, Refusals, RouteEntry, Unavailable
from tests.appliance.fakes import FakeCloud, FakeFirewall, FakeRoutes, entry, tun

ADDRESSES: Final = ("100.64.240.50/24", "fd64::50/64")
SUBNETS: Final = [ip_interface(address).network for address in ADDRESSES]


@dataclass
class Disk:
    """A disk that a test can take away.

    `wanted`: what the operator was told is wanted, whatever becomes of it; `once`: what was wanted ever.
    """

    broken: bool = False
    wanted: set[Network] = field(default_factory=set)
    once: set[Network] = field(default_factory=set)
    violations: list[str] = field(default_factory=list)

    def hold(self, claim: bool, text: str) -> None:
        if not claim:
            self.violations.append(text)

    def read(self) -> None:
        if self.broken:
            raise StoreUnavailable("the disk is gone")


class Store(IntentStore):
    """A real database. `in_kernel` tells whether the kernel holds anything of a CIDR."""

    disk: Disk
    in_kernel: Callable[[Network], bool]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        self.disk.read()
        with super()._reading() as db:
            yield db

    def drop(self, network: Network, revision: int) -> bool:
        dropped = super().drop(network, revision)
        self.disk.hold(not (dropped and self.in_kernel(network)), f"I7: {network} is forgotten, and its route is there")
        return dropped


class Reader(IntentReader):
    """The same database, as nexthop-forward reads it."""

    disk: Disk

    def all(self) -> tuple[Intent, ...]:
        self.disk.read()
        return super().all()


class Cloud(FakeCloud):
    """Makes no second entry where somebody else's is, as the real one does not; and may leave without an answer."""

    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self.disk = disk
        self.mute = False  # no answer to the next write, which is carried out

    async def ensure(self, destinations: Collection[Network]) -> Refusals:
        refused: dict[Network, CloudError] = {}
        for destination in destinations:
            if any(each.destination == destination for each in self.foreign()):
                self.did.append(("ensure", destination))
                refused[destination] = Duplicate("there is one that is not ours")
            else:
                refused |= await super().ensure([destination])
        self.answer()
        return refused

    async def withdraw(self, destinations: Collection[Network]) -> Refusals:
        for destination in destinations:
            self.disk.hold(destination not in self.disk.wanted, f"I1: the entry for {destination} is wanted")
        refused = await super().withdraw(destinations)
        self.answer()
        return refused

    def answer(self) -> None:
        mute, self.mute = self.mute, False
        if mute:
            raise Unavailable("no answer")

    def ours(self) -> set[Network]:
        return {each.destination for each in self.entries if each.owner is Owner.OURS}

    def foreign(self) -> list[RouteEntry]:
        return [each for each in self.entries if each.owner is Owner.FOREIGN]

    def lands_late(self, network: Network) -> None:
        if not any(each.destination == network for each in self.entries):
            self.entries += [entry(network, table) for table in self.vpc.tables]

    def somebody_makes(self, network: Network) -> None:
        self.entries += [entry(network, table, Owner.FOREIGN, "i-other") for table in self.vpc.tables]

    def somebody_removes(self, network: Network) -> None:
        self.entries = [each for each in self.entries if each.destination != network or each.owner is not Owner.FOREIGN]


class Firewall(FakeFirewall):
    """Remembers what it was told last, whoever may have flushed it since."""

    ruled: frozenset[tuple[Network, str]] = frozenset()

    def write(self, rules: Rules) -> None:
        super().write(rules)
        self.ruled = rules.carried


class Kernel(FakeRoutes):
    """`carrying` tells what nexthopd counts as carried."""

    carrying: Callable[[], frozenset[Network]]

    def __init__(self, disk: Disk, cloud: Cloud, firewall: Firewall) -> None:
        super().__init__(tun("hk", *ADDRESSES))
        self.disk, self.cloud, self.firewall = disk, cloud, firewall
        self.behind: set[Route] = set()  # what we have put there, whoever may have taken it away since

    async def add(self, route: Route) -> None:
        if route.device is not None:
            self.disk.hold(Route(route.destination, None, 4000) in self.behind, f"I5: nothing behind {route}")
            ruled = route.destination in SUBNETS or (route.destination, route.device) in self.firewall.ruled
            self.disk.hold(ruled, f"I5: no rules for {route}")
        else:
            self.behind.add(route)
        await super().add(route)

    async def remove(self, route: Route) -> None:
        self.disk.hold(route.destination not in self.cloud.ours(), f"I1: a black hole without {route}")
        self.disk.hold(route.destination not in self.carrying(), f"I1: {route} counts as carried")
        self.behind.discard(route)
        await super().remove(route)

    def holds(self, network: Network) -> bool:
        return any(route.destination == network for route in self.table)
