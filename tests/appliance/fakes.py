"""A kernel and a cloud in memory, small enough to be believed. What they were told to do is in `did`, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, ip_interface, ip_network
from pathlib import Path

from appliance.kernel.choose import Chosen
from appliance.kernel.firewall import FirewallError
from appliance.kernel.rules import Rules
from appliance.kernel.state import Device, DeviceGone, Drift, KernelState, Network, Refused, Route
from cloud.provider import (
    CloudError,
    Denied,
    Duplicate,
    EntryStatus,
    Finding,
    Observation,
    Owner,
    QuotaExceeded,
    Refusals,
    Rejected,
    RouteEntry,
    State,
    Vpc,
)

POD = ip_network("10.244.0.0/16")
SERVICE = ip_network("10.96.0.0/16")


async def until(condition: Callable[[], object], within: float = 10.0) -> None:
    """Wait for a condition; the time is there to fail, not to be measured."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.002)


def tun(
    link: str = "hk", address: str | None = "100.64.240.50/24", *more: str, up: bool = True, index: int = 7
) -> Device:
    addresses = tuple(ip_interface(each) for each in (address, *more) if each is not None)
    return Device(f"tun-{link}", index, up, up, addresses, f"nexthop link {link}", "tun")


ETH0 = Device("eth0", 2, up=True, carrier=True, addresses=(ip_interface("172.18.2.10/24"),))


class FakeRoutes:
    """A main routing table with its devices. `gates` hold back a call by name until the event is set."""

    def __init__(self, *devices: Device, default: str | None = "eth0") -> None:
        self.table: set[Route] = set()
        self.devices = {device.name: device for device in (ETH0, *devices)}
        self.default = default
        self.did: list[tuple[str, Route | str]] = []
        self.observed = 0
        self.refuse: dict[Network, str] = {}
        self.swallow = False  # take a route and not install it
        self.before_remove: Callable[[], None] = lambda: None
        self._changed = asyncio.Event()

    def change(self) -> None:
        self._changed.set()

    async def observe(self) -> KernelState:
        await asyncio.sleep(0)
        self.observed += 1
        return KernelState(frozenset(self.table), frozenset(), dict(self.devices), self.default)

    async def add(self, route: Route) -> None:
        await asyncio.sleep(0)
        if route.device is not None and route.device not in self.devices:
            raise DeviceGone(f"there is no device {route.device}")
        if route.destination in self.refuse:
            raise Refused(self.refuse[route.destination])
        self.did.append(("add", route))
        if not self.swallow:
            same = {r for r in self.table if (r.destination, r.metric) == (route.destination, route.metric)}
            self.table -= same
            self.table.add(route)
        self.change()

    async def remove(self, route: Route) -> None:
        self.before_remove()
        await asyncio.sleep(0)
        self.did.append(("remove", route))
        self.table.discard(route)
        self.change()

    async def delete_device(self, name: str) -> None:
        self.did.append(("delete", name))
        self.devices.pop(name, None)
        self.table = {route for route in self.table if route.device != name}
        self.change()

    async def changes(self) -> AsyncIterator[None]:
        while True:
            await self._changed.wait()
            self._changed.clear()
            yield


class FakeFirewall:
    name = "fake"

    def __init__(self, log: list[tuple[str, Route | str]] | None = None) -> None:
        self.rules: Rules | None = None
        self.writes = 0
        self.reads = 0
        self.purged = 0
        self.fault: str | None = None
        self._log = log

    def holds(self, rules: Rules) -> bool:
        self.reads += 1
        return self.rules == rules

    def write(self, rules: Rules) -> None:
        if self.fault is not None:
            raise FirewallError(self.fault)
        self.writes += 1
        self.rules = rules
        if self._log is not None:
            self._log.append(("firewall", ", ".join(sorted(str(net) for net, _ in rules.carried))))

    def purge(self) -> None:
        self.purged += 1
        self.rules = None


def chosen(firewall: FakeFirewall, *others: FakeFirewall, reason: str | None = None) -> Chosen:
    return Chosen(firewall, reason, None, others)


class FakeSysctls:
    """Everything right, until `drifts` says otherwise. `before`: what `log` held when the machine began to forward."""

    def __init__(self, log: Sequence[tuple[str, Route | str]] = ()) -> None:
        self._log = log
        self.before: list[tuple[str, Route | str]] = []
        self.drifts: list[Drift] = []  # shown once, as what was mended is
        self.stubborn: list[Drift] = []
        self.asked: list[tuple[str | None, frozenset[str], bool]] = []

    def __call__(self, vpc: str | None, devices: Collection[str], v6: bool, forwards: bool) -> Sequence[Drift]:
        if forwards and not self.before:
            self.before = list(self._log)
        self.asked.append((vpc, frozenset(devices), v6))
        found, self.drifts = self.drifts, []
        return [*found, *self.stubborn]


VPC = Vpc(
    vpc_id="vpc-1",
    region="cn-shenzhen",
    cidrs=(ip_network("172.18.0.0/16"),),
    vswitches=(("vsw-1", ip_network("172.18.1.0/24")), ("vsw-2", ip_network("172.18.2.0/24"))),
    instance_id="i-1",
    private_ip=IPv4Address("172.18.2.10"),
    tables=("vtb-1", "vtb-2"),
)


def entry(network: Network, table: str = "vtb-1", owner: Owner = Owner.OURS, hop: str = "i-1") -> RouteEntry:
    return RouteEntry(network, hop, "Instance", table, f"rte-{network}-{table}", owner, EntryStatus.AVAILABLE)


class FakeCloud:
    """Two route tables. `fail` is raised by the next write; `observe_error` by every reading while it is set."""

    def __init__(self, vpc: Vpc = VPC) -> None:
        self.vpc = vpc
        self.entries: list[RouteEntry] = []
        self.elsewhere: list[RouteEntry] = []  # ours, in tables that are not programmed any more
        self.did: list[tuple[str, Network]] = []
        self.requests: list[tuple[str, tuple[Network, ...]]] = []
        self.observed = 0
        self.fail: list[CloudError] = []
        self.lasting: dict[Network, CloudError] = {}  # what is refused about one CIDR each time
        self.whole: dict[str, CloudError] = {}  # what ends each request of a kind
        self.observe_error: CloudError | None = None
        self.lands = True  # whether a write does what it says
        self.gate: asyncio.Event | None = None  # a write waits for it

    async def observe(self) -> Observation:
        await asyncio.sleep(0)
        if self.observe_error is not None:
            raise self.observe_error
        self.observed += 1
        return Observation(self.vpc, tuple(self.entries), elsewhere=tuple(self.elsewhere))

    async def ensure(self, destinations: Collection[Network]) -> Refusals:
        self.requests.append(("ensure", tuple(destinations)))
        refused: dict[Network, CloudError] = {}
        for destination in destinations:
            self.did.append(("ensure", destination))
            if self._stopped("ensure", destination, refused):
                continue
            try:
                await self._wait()
            except (Duplicate, QuotaExceeded, Rejected) as error:
                refused[destination] = error
                continue
            if self.lands:
                self.remove(destination)
                self.entries = [e for e in self.entries if (e.destination, e.owner) != (destination, Owner.EARLIER)]
                self.entries += [entry(destination, table) for table in self.vpc.tables]
        return refused

    async def withdraw(self, destinations: Collection[Network]) -> Refusals:
        self.requests.append(("withdraw", tuple(destinations)))
        refused: dict[Network, CloudError] = {}
        for destination in destinations:
            self.did.append(("withdraw", destination))
            if self._stopped("withdraw", destination, refused):
                continue
            await self._wait()
            if self.lands:
                self.remove(destination)
                self.elsewhere = [e for e in self.elsewhere if e.destination != destination]
        return refused

    async def adopt(self, destination: Network) -> None:
        self.did.append(("adopt", destination))
        await self._wait()
        self.entries = [
            replace(e, owner=Owner.OURS, next_hop="i-1") if e.destination == destination else e for e in self.entries
        ]

    async def examine(self, wanted: Collection[Network]) -> tuple[Finding, ...]:
        return tuple(Finding("wanted", State.OK, str(cidr)) for cidr in wanted)

    def policy(self) -> Mapping[str, object]:
        return {"Version": "1", "Statement": []}

    def _stopped(self, what: str, destination: Network, refused: dict[Network, CloudError]) -> bool:
        if what in self.whole:
            error = self.whole[what]
            error.refused = {} if isinstance(error, Denied) else {destination: error, **refused}
            raise error
        if destination in self.lasting:
            refused[destination] = self.lasting[destination]
        return destination in refused

    async def _wait(self) -> None:
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        if self.fail:
            raise self.fail.pop(0)

    def remove(self, destination: Network) -> None:
        self.entries = [e for e in self.entries if e.destination != destination or e.owner is not Owner.OURS]

    def pending(self) -> None:
        self.entries = [replace(e, status=EntryStatus.PENDING) for e in self.entries]


def make_links(state: Path, names: Iterable[str] = ("hk",)) -> None:
    """Write link files as `Links.join` would."""
    (state / "links").mkdir(parents=True, exist_ok=True)
    for name in names:
        (state / "links" / f"{name}.toml").write_text(
            f'[link]\nname = "{name}"\ndevice = "tun-{name}"\nserver = "203.0.113.10:9443"\n'
            'pin = "pin"\nclient = "sz"\nkey = "SECRETKEY"\njoin = "SECRETJOIN"\n'
        )
