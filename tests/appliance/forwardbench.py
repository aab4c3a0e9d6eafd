"""`Forward` over a kernel in memory, heard by a real `ForwardClient` over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

from appliance.forward import Forward, Pace
from appliance.forwardclient import ForwardClient
from appliance.forwardserver import ForwardServer
from appliance.intent import IntentStore
from appliance.intentreader import IntentReader
from appliance.kernel.state import Device, Route
from appliance.links import Links
from tests.appliance.fakes import (
    POD,
    FakeFirewall,
    FakeRoutes,
    FakeSysctls,
    chosen,
    make_links,
    tun,
    until,
)

TUNNEL = Route(POD, "tun-hk", 50)
BEHIND = Route(POD, None, 4000)
SUBNET = Route(ip_network("100.64.240.0/24"), None, 4000)
OWN = Route(SUBNET.destination, "tun-hk", 50)  # behind the kernel's own
FAST = Pace(glance=0.01, whole=60, first_retry=0.01, last_retry=0.02)


@dataclass
class Bench:
    store: IntentStore
    links: Links
    routes: FakeRoutes
    firewall: FakeFirewall
    sysctls: FakeSysctls
    forward: Forward
    client: ForwardClient
    state: Path

    async def settled(self) -> None:
        """Wait for a whole pass that found nothing to do."""
        while True:
            did, observed = len(self.routes.did), self.routes.observed
            self.forward.wake()
            await until(lambda before=observed: self.routes.observed > before and self._idle())  # type: ignore[misc]
            if did == len(self.routes.did):
                return

    def _idle(self) -> bool:
        return not (self.forward._wake.is_set() or self.forward._kernel.locked())


@contextlib.asynccontextmanager
async def running(tmp_path: Path, routes: FakeRoutes | None = None, **made: object) -> AsyncIterator[Bench]:
    make_links(tmp_path)
    store = IntentStore(tmp_path / "nexthop.db")
    links = Links(tmp_path, tmp_path / "run")
    routes = routes or FakeRoutes(tun())
    firewall, sysctls = FakeFirewall(routes.did), FakeSysctls(routes.did)
    pace = made.pop("pace", FAST)
    assert isinstance(pace, Pace)
    prepare = made.pop("prepare", None)
    reader = made.pop("reader", store)
    assert isinstance(reader, IntentStore | IntentReader)
    other = made.pop("other", None)
    others = (other,) if isinstance(other, FakeFirewall) else ()
    picked = chosen(firewall, *others, reason="no TCPMSS")

    server = ForwardServer(tmp_path / "forward.sock")
    forward = Forward(reader, links, routes, picked, server, sysctls=sysctls, pace=pace, jitter=lambda: 0.5)

    async def devices() -> Mapping[str, Device]:
        return {}

    client = ForwardClient(tmp_path / "forward.sock", store, links, devices, retry=0.002)
    store.on_change(forward.wake)
    links.on_change(forward.wake)
    bench = Bench(store, links, routes, firewall, sysctls, forward, client, tmp_path)
    if callable(prepare):
        prepare(bench)
    loop = asyncio.get_running_loop()
    runs = (server.run(forward), client.run(), forward.run())
    tasks = [loop.create_task(each) for each in runs]
    try:
        await until(server.listens)
        yield bench
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        store.close()
