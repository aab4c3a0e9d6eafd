"""One appliance in one process: both daemons' real loops on a clock of their own, over watched disk, kernel and cloud.

Each of the two daemons lives and dies by itself, and remembers nothing but what is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from appliance.attract import Attract
from appliance.forward import Forward
from appliance.forwardclient import ForwardClient
from appliance.forwardserver import ForwardServer
from appliance.guard import Facts
from appliance.kernel.state import Device, Route
from appliance.links import Links
from appliance.model import Phase
from cloud.provider import Owner, Provider, RouteEntry, Vpc
from tests.appliance.fakes import FakeSysctls, chosen, make_links
from tests.appliance.virtualloop import VirtualLoop
from tests.appliance.watched import SUBNETS, Cloud, Disk, Firewall, Kernel, Reader, Store

_PATIENCE: Final = 600.0  # seconds of the loop's own clock: an entry that was refused is tried again ever more rarely

_PLACE: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None


class Node:
    """`theirs` is what somebody else has put into the route tables."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.place = Path(tempfile.mkdtemp(prefix="nh-machine-", dir=_PLACE))
        make_links(self.place)
        self.disk = Disk()
        self.cloud, self.firewall = Cloud(self.disk), Firewall()
        self.kernel = Kernel(self.disk, self.cloud, self.firewall)
        self.theirs: list[RouteEntry] = []
        self.forward_lives()
        self.nexthopd_lives()
        self.until(lambda: self.forward.ready() and self.client.ready())

    def forward_lives(self) -> None:
        """Start nexthop-forward, with nothing remembered."""
        reader = Reader(self.place / "nexthop.db")
        reader.disk = self.disk
        server = ForwardServer(self.place / "forward.sock")
        links = Links(self.place, self.place / "run")
        self.forward = Forward(
            *(reader, links, self.kernel, chosen(self.firewall), server), sysctls=FakeSysctls(), jitter=lambda: 0.5
        )
        self.privileged = [self.loop.create_task(each) for each in (server.run(self.forward), self.forward.run())]

    def nexthopd_lives(self) -> None:
        """Start nexthopd, with nothing remembered but what is on disk."""
        self.store = Store(self.place / "nexthop.db", clock=self.loop.time)
        self.store.disk, self.store.in_kernel = self.disk, self.kernel.holds
        links = Links(self.place, self.place / "run")

        async def connect() -> Provider:
            return self.cloud

        async def facts(vpc: Vpc) -> Facts:
            return Facts(vpc=vpc, intents=self.store.all(), links=frozenset({"hk"}))

        async def devices() -> Mapping[str, Device]:
            return self.kernel.devices

        self.client = ForwardClient(self.place / "forward.sock", self.store, links, devices)
        self.kernel.carrying = lambda: self.client.carrying
        self.attract = Attract(self.store, connect, self.client, facts, jitter=lambda: 0.5)
        self.others = [self.loop.create_task(each.run()) for each in (self.client, self.attract)]

    def forward_dies(self) -> None:
        self._die(self.privileged)

    def nexthopd_dies(self) -> None:
        self._die(self.others)
        self.kernel.carrying = frozenset
        self.store.close()

    def _die(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        results = self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    def until(self, condition: Callable[[], bool]) -> None:
        """Go on until something is so."""

        async def wait() -> None:
            async with asyncio.timeout(_PATIENCE):
                while not condition() and not self.over():  # noqa: ASYNC110 - it has no event of its own
                    await asyncio.sleep(0.25)

        self.loop.run_until_complete(wait())
        assert not self.over()

    def over(self) -> list[asyncio.Task[None]]:
        """Return the loops that have ended, which none may."""
        return [task for task in (*self.privileged, *self.others) if task.done()]

    def nobody_interferes(self) -> None:
        """End all faults and let all settle; then have both loops pass once more."""
        self.disk.broken, self.firewall.fault = False, None
        self.loop.there = self.loop.back = 0.0
        self.cloud.observe_error, self.cloud.mute, self.cloud.fail = None, False, []
        self.forward.wake()
        self.attract.wake()
        self.until(self.is_settled)
        writes, seen, observed = self.writes(), self.kernel.observed, self.cloud.observed
        self.forward.wake()
        self.attract.wake()
        self.until(lambda: self.kernel.observed > seen and self.cloud.observed > observed)
        self.loop.turns(60)
        assert self.writes() == writes, "I7"

    def writes(self) -> tuple[int, int, int]:
        """Return how many there were: to the firewall, to the routes, to the cloud."""
        return self.firewall.writes, len(self.kernel.did), len(self.cloud.did)

    def is_settled(self) -> bool:
        """Tell whether everything is as the operator wants it, and nothing is there twice."""
        wanted = self.disk.wanted
        through = {Route(network, "tun-hk", 50) for network in wanted}
        behind = {Route(network, None, 4000) for network in (*wanted, *SUBNETS)}
        entries = [each.destination for each in self.cloud.entries if each.owner is Owner.OURS]
        attracted = wanted - {each.destination for each in self.theirs}
        rules = self.firewall.rules
        return (
            {intent.network: intent.phase for intent in self.store.all()} == dict.fromkeys(wanted, Phase.PRESENT)
            and self.kernel.table == through | behind | {Route(subnet, "tun-hk", 50) for subnet in SUBNETS}
            and sorted(entries, key=str) == sorted([*attracted] * len(self.cloud.vpc.tables), key=str)
            and rules is not None
            and {network for network, _ in rules.carried} == wanted
            and {network for network, _ in rules.masquerade} == {each.network for each in self.store.all() if each.snat}
            and self.forward.carrying == self.client.carrying == wanted
        )

    def end(self) -> None:
        """Leave nothing behind."""
        for die in (self.forward_dies, self.nexthopd_dies):
            with contextlib.suppress(BaseException):
                die()
        self.loop.turns(20)
        self.loop.close()
        shutil.rmtree(self.place)
