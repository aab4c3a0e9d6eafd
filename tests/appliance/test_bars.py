"""What takes from the VPC itself is let go of where nobody relies on it, and comes back when nothing is against it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path

from appliance.attract import Attract
from appliance.bars import bars, trespassing
from appliance.forward import Forward, Pace
from appliance.forwardclient import ForwardClient
from appliance.forwardserver import ForwardServer
from appliance.guard import Facts, Reason, Severity
from appliance.intent import IntentStore
from appliance.intentreader import IntentReader
from appliance.kernel.state import Device
from appliance.links import Links
from appliance.model import Bar, Intent, Network, Phase
from appliance.status import LayerState
from cloud.provider import Provider, Unavailable, Vpc
from tests.appliance.fakes import (
    POD,
    SERVICE,
    VPC,
    FakeCloud,
    FakeFirewall,
    FakeRoutes,
    FakeSysctls,
    chosen,
    entry,
    make_links,
    tun,
    until,
)

HOSTS = VPC.vswitches[0][1]
WHY = Reason("overlaps-vswitch", Severity.REFUSE, "a vSwitch is there", "")
BAR = Bar(WHY.code, WHY.text)


def test_what_is_against_the_vpc_is_barred_where_nothing_sends_it_here() -> None:
    assert bars([Intent(POD, "hk")], {POD: WHY}, {}, ours=()) == {POD: BAR}
    assert bars([Intent(POD, "hk")], {POD: WHY}, {}, ours={POD}) == {}
    assert bars([Intent(POD, "hk")], {POD: WHY}, {POD: BAR}, ours={POD}) == {POD: BAR}
    assert bars([Intent(POD, "hk")], {}, {POD: BAR}, ours=()) == {}


def test_what_leaves_stays_barred_until_it_is_gone() -> None:
    for phase in (Phase.LEAVING, Phase.WITHDRAWN):
        assert bars([Intent(POD, "hk", phase=phase)], {}, {POD: BAR, SERVICE: BAR}, ours=()) == {POD: BAR}


def test_only_what_is_asked_for_can_trespass() -> None:
    found = trespassing([Intent(HOSTS, "hk"), Intent(POD, "hk"), Intent(VPC.cidrs[0], "hk", phase=Phase.LEAVING)], VPC)
    assert {network: why.code for network, why in found.items()} == {HOSTS: "overlaps-vswitch"}


# ---- both loops, with their conversation between them --------------------------------------------------------------


@dataclass
class Whole:
    store: IntentStore
    cloud: FakeCloud
    routes: FakeRoutes
    attract: Attract
    client: ForwardClient
    silent: bool = True

    def routed(self, network: Network) -> bool:
        return any(route.destination == network for route in self.routes.table)

    def phase(self, network: Network) -> Phase | None:
        found = self.store.get(network)
        return None if found is None else found.phase


@contextlib.asynccontextmanager
async def whole(place: Path) -> AsyncIterator[Whole]:
    make_links(place)
    store, cloud, routes = IntentStore(place / "nexthop.db"), FakeCloud(), FakeRoutes(tun())
    links = Links(place, place / "run")
    reader = IntentReader(store.path)
    pace = Pace(glance=0.01, whole=0.05, first_retry=0.01, last_retry=0.05)

    async def devices() -> Mapping[str, Device]:
        return {}

    server = ForwardServer(place / "forward.sock")
    forward = Forward(reader, links, routes, chosen(FakeFirewall()), server, sysctls=FakeSysctls(), pace=pace)
    client = ForwardClient(place / "forward.sock", store, links, devices, retry=0.002)

    async def connect() -> Provider:
        if made.silent:
            raise Unavailable("no answer")
        return cloud

    async def facts(vpc: Vpc) -> Facts:
        return Facts(vpc=vpc, intents=store.all(), links=frozenset({"hk"}))

    attract = Attract(store, connect, client, facts, resync=0.05, first_retry=0.01, jitter=lambda: 0.5)
    made = Whole(store, cloud, routes, attract, client)
    store.all()
    work = (forward.run(), server.run(forward), client.run(), attract.run())
    tasks = [asyncio.get_running_loop().create_task(each) for each in work]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        store.close()


def test_what_was_taken_while_the_cloud_was_silent_goes_from_the_kernel_once_it_says_that_hosts_live_there(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with whole(tmp_path) as it:
            it.store.put(Intent(HOSTS, "hk"))
            it.store.put(Intent(POD, "hk"))
            await until(lambda: it.routed(HOSTS) and it.routed(POD))
            it.silent = False
            await until(lambda: not it.routed(HOSTS))  # not even what answers "unreachable": they are answered by eth0
            for layer in (it.client.layer(HOSTS), it.attract.layer(HOSTS)):
                assert (layer.state, layer.code) == (LayerState.ERROR, "overlaps-vswitch")
            await until(lambda: it.attract.layer(POD).state is LayerState.OK)
            assert it.routed(POD)
            assert it.phase(HOSTS) is Phase.PRESENT  # what the operator asked for is still known
            assert ("ensure", HOSTS) not in it.cloud.did
            it.cloud.vpc = replace(VPC, vswitches=VPC.vswitches[1:])
            await until(lambda: it.routed(HOSTS))
            await until(lambda: it.attract.layer(HOSTS).state is LayerState.OK)
            assert it.client.layer(HOSTS).state is LayerState.OK

    asyncio.run(scenario())


def test_one_that_is_barred_can_be_removed_and_is_not_carried_once_more_on_its_way_out(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with whole(tmp_path) as it:
            it.store.put(Intent(HOSTS, "hk"))
            await until(lambda: it.routed(HOSTS))
            it.silent = False
            await until(lambda: HOSTS in it.store.barred() and not it.routed(HOSTS))
            added = len([did for did in it.routes.did if did[0] == "add"])
            it.store.leave(HOSTS)
            await until(lambda: it.phase(HOSTS) is None)
            await until(lambda: it.store.barred() == {})
            assert len([did for did in it.routes.did if did[0] == "add"]) == added

    asyncio.run(scenario())


def test_a_cidr_that_hosts_rely_on_is_shown_and_stays_when_a_vswitch_comes_to_lie_in_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with whole(tmp_path) as it:
            it.silent = False
            it.store.put(Intent(POD, "hk"))
            await until(lambda: it.attract.layer(POD).state is LayerState.OK)
            it.cloud.vpc = replace(VPC, vswitches=(*VPC.vswitches, ("vsw-3", ip_network("10.244.7.0/24"))))
            await until(lambda: it.attract.layer(POD).code == "overlaps-vswitch")
            before = it.cloud.observed
            await until(lambda: it.cloud.observed > before + 2)
            assert it.routed(POD)
            assert it.cloud.did == [("ensure", POD)]

    asyncio.run(scenario())


def test_an_entry_that_a_late_request_makes_for_what_is_barred_is_removed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with whole(tmp_path) as it:
            it.silent = False
            it.store.put(Intent(HOSTS, "hk"))
            await until(lambda: HOSTS in it.store.barred() and not it.routed(HOSTS))
            it.cloud.entries = [entry(HOSTS, "vtb-1")]
            await until(lambda: it.cloud.did == [("withdraw", HOSTS)] and not it.cloud.entries)
            assert HOSTS in it.store.barred()

    asyncio.run(scenario())
