"""Both real loops over a kernel and a cloud in memory, while an operator, other people, faults and crashes interfere.

A state machine of hypothesis chooses what happens next, and how many turns of the event loop later the thing after it;
300 steps here, 10,000 with NEXTHOP_SOAK=1 (`./run soak`). The loop's clock is its own (`tests.appliance.virtualloop`),
so what was found once is found again. After each step, and in the moment of each write (`tests.appliance.watched`),
these hold (I1 to I8 are the invariants of one node):

    I1  we never remove the route of a CIDR that the cloud sends here by an entry of ours, nor one that nexthopd counts
        as carried, nor the entry of a CIDR that is wanted
    I2  what is not ours is never changed: foreign entries stay as somebody made them
    I4  with the database broken nothing that is wanted or that the cloud sends here is removed
    I5  no route to a tunnel is added before the rules and what answers "unreachable" are there
    I6  once nobody interferes any more, kernel and cloud are as the operator wants them
    I7  nothing is there twice, and what was given back leaves nothing behind; a further pass writes nothing
    I8  the number of tasks and of connections does not grow

I3 (one owner) is about two nodes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from appliance.attract import Attract
from appliance.forward import Forward
from appliance.forwardclient import ForwardClient
from appliance.forwardserver import ForwardServer
from appliance.guard import Facts
from appliance.intent import StoreUnavailable
from appliance.kernel.state import Device, Network, Route
from appliance.links import Links
from appliance.model import Intent, Phase
from cloud.provider import Owner, Provider, RouteEntry, Unavailable, Vpc
from tests.appliance.fakes import FakeSysctls, chosen, make_links, tun
from tests.appliance.virtualloop import VirtualLoop
from tests.appliance.watched import SUBNET, Cloud, Disk, Firewall, Kernel, Reader, Store

NETWORKS = tuple(ip_network(f"10.{number}.0.0/16") for number in (1, 2, 3))
WANTED: Final = 10_000 if os.environ.get("NEXTHOP_SOAK") else 300  # steps
EACH: Final = 50  # steps, in one life of the machine
PATIENCE: Final = 600.0  # seconds of the loop's own clock: an entry that was refused is tried again ever more rarely
networks = st.sampled_from(NETWORKS)
turns = st.integers(0, 60)


class Appliance(RuleBasedStateMachine):
    """The machine. `theirs` is what somebody else has put into the route tables."""

    steps = 0

    @initialize()
    def start(self) -> None:
        self.loop = VirtualLoop()
        self.place = Path(tempfile.mkdtemp(prefix="nh-machine-"))
        make_links(self.place)
        self.disk = Disk()
        self.cloud, self.firewall = Cloud(self.disk), Firewall()
        self.kernel = Kernel(self.disk, self.cloud, self.firewall)
        self.theirs: list[RouteEntry] = []
        self.forward_lives()
        self.nexthopd_lives()
        self.turn(lambda: self.forward.ready() and self.client.ready())

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

    def die(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        results = self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    def turn(self, condition: Callable[[], bool]) -> None:
        """Go on until something is so."""

        async def wait() -> None:
            async with asyncio.timeout(PATIENCE):
                while not condition() and not self.over():
                    await asyncio.sleep(0.25)  # noqa: ASYNC110 - what is waited for has no event of its own

        self.loop.run_until_complete(wait())

    def over(self) -> list[asyncio.Task[None]]:
        """Return the loops that have ended, which none may."""
        return [task for task in (*self.privileged, *self.others) if task.done()]

    # ---- the operator -----------------------------------------------------------------------------------------

    @rule(network=networks, snat=st.booleans(), turns=turns)
    def ask(self, network: Network, snat: bool, turns: int) -> None:
        with contextlib.suppress(StoreUnavailable):
            self.store.put(Intent(network, "hk", snat))
            self.disk.wanted.add(network)
        self.loop.turns(turns)

    @rule(network=networks, turns=turns)
    def give_back(self, network: Network, turns: int) -> None:
        with contextlib.suppress(StoreUnavailable, KeyError):
            self.store.leave(network)
            self.disk.wanted.discard(network)
        self.loop.turns(turns)

    # ---- other people -----------------------------------------------------------------------------------------

    @rule(number=st.integers(0, 9), turns=turns)
    def a_route_is_deleted(self, number: int, turns: int) -> None:
        if self.kernel.table:
            table = sorted(self.kernel.table, key=str)
            self.kernel.table.discard(table[number % len(table)])
            self.kernel.change()
        self.loop.turns(turns)

    @rule(turns=turns)
    def the_rules_are_flushed(self, turns: int) -> None:
        self.firewall.rules = None
        self.loop.turns(turns)

    @rule(turns=turns)
    def the_device_is_made_anew(self, turns: int) -> None:
        old = self.kernel.devices.pop("tun-hk")
        self.kernel.table = {route for route in self.kernel.table if route.device is None}
        self.kernel.change()
        self.loop.turns(turns)
        self.kernel.devices["tun-hk"] = tun(index=old.index + 1)
        self.kernel.change()

    @rule(network=networks, turns=turns)
    def an_entry_of_ours_is_deleted(self, network: Network, turns: int) -> None:
        self.cloud.remove(network)
        self.loop.turns(turns)

    @rule(network=networks, turns=turns)
    def somebody_makes_an_entry(self, network: Network, turns: int) -> None:
        if not any(each.destination == network for each in self.cloud.entries):
            self.cloud.somebody_makes(network)
            self.theirs = self.cloud.foreign()
        self.loop.turns(turns)

    @rule(network=networks, turns=turns)
    def somebody_takes_his_entry_back(self, network: Network, turns: int) -> None:
        self.cloud.somebody_removes(network)
        self.theirs = self.cloud.foreign()
        self.loop.turns(turns)

    # ---- faults -----------------------------------------------------------------------------------------------

    @rule(done=st.booleans(), turns=turns)
    def the_next_write_to_the_cloud_gets_no_answer(self, done: bool, turns: int) -> None:
        self.cloud.mute = done
        self.cloud.fail = [] if done else [Unavailable("no answer")]
        self.loop.turns(turns)

    @rule(away=st.booleans(), turns=turns)
    def the_cloud(self, away: bool, turns: int) -> None:
        self.cloud.observe_error = Unavailable("no answer") if away else None
        self.loop.turns(turns)

    @rule(fault=st.sampled_from([None, "no TCPMSS"]), turns=turns)
    def the_firewall_refuses(self, fault: str | None, turns: int) -> None:
        self.firewall.fault = fault
        self.loop.turns(turns)

    @rule(broken=st.booleans(), turns=turns)
    def the_disk_is(self, broken: bool, turns: int) -> None:
        self.disk.broken = broken
        self.loop.turns(turns)

    @rule(latency=st.sampled_from([0.0, 0.01, 0.2, 0.4, 3.0]), turns=turns)
    def the_daemons_hear_each_other_late(self, latency: float, turns: int) -> None:
        self.loop.latency = latency
        self.loop.turns(turns)

    @rule(turns=turns)
    def nexthopd_dies(self, turns: int) -> None:
        self.die(self.others)
        self.kernel.carrying = frozenset
        self.store.close()
        self.loop.turns(turns)
        self.nexthopd_lives()

    @rule(turns=turns)
    def nexthop_forward_dies(self, turns: int) -> None:
        self.die(self.privileged)
        self.loop.turns(turns)
        self.forward_lives()

    @rule(seconds=st.sampled_from([0.3, 1.0, 10.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    # ---- what holds -------------------------------------------------------------------------------------------

    @invariant()
    def what_is_not_ours_stays(self) -> None:
        Appliance.steps += 1
        assert self.cloud.foreign() == self.theirs, "I2"

    @invariant()
    def nothing_was_violated_on_the_way(self) -> None:
        assert not self.disk.violations
        assert "nobody thought of" not in (self.forward.problem() or "")

    @invariant()
    def no_loop_has_ended_and_nothing_is_left_over(self) -> None:
        assert not self.over()
        assert len(asyncio.all_tasks(self.loop)) <= 12, "I8"
        assert self.loop.ends <= 4, "I8"

    @precondition(lambda self: hasattr(self, "loop"))
    @rule()
    def nobody_interferes_any_more(self) -> None:
        """Let all settle: everywhere it is as the operator wants it."""
        self.disk.broken, self.firewall.fault, self.loop.latency = False, None, 0.0
        self.cloud.observe_error, self.cloud.mute, self.cloud.fail = None, False, []
        self.forward.wake()
        self.attract.wake()
        self.turn(self.is_settled)
        writes, did, sent = self.firewall.writes, len(self.kernel.did), len(self.cloud.did)
        seen, observed = self.kernel.observed, self.cloud.observed
        self.forward.wake()
        self.attract.wake()
        self.turn(lambda: self.kernel.observed > seen and self.cloud.observed > observed)
        self.loop.turns(60)
        assert (self.firewall.writes, len(self.kernel.did), len(self.cloud.did)) == (writes, did, sent), "I7"

    def is_settled(self) -> bool:
        wanted = self.disk.wanted
        through = {Route(network, "tun-hk", 50) for network in wanted}
        behind = {Route(network, None, 4000) for network in (*wanted, SUBNET)}
        entries = [each.destination for each in self.cloud.entries if each.owner is Owner.OURS]
        attracted = wanted - {each.destination for each in self.theirs}
        rules = self.firewall.rules
        return (
            {intent.network: intent.phase for intent in self.store.all()} == dict.fromkeys(wanted, Phase.PRESENT)
            and self.kernel.table == through | behind | {Route(SUBNET, "tun-hk", 50)}
            and sorted(entries, key=str) == sorted([*attracted] * len(self.cloud.vpc.tables), key=str)
            and rules is not None
            and {network for network, _ in rules.carried} == wanted
            and {network for network, _ in rules.masquerade} == {each.network for each in self.store.all() if each.snat}
            and self.forward.carrying == self.client.carrying == wanted
        )

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.nobody_interferes_any_more()
        finally:
            with contextlib.suppress(BaseException):
                self.die([*self.privileged, *self.others])
            self.store.close()
            self.loop.turns(20)
            self.loop.close()
            shutil.rmtree(self.place)


def test_whatever_happens_the_invariants_hold() -> None:
    begun = Appliance.steps
    run_state_machine_as_test(
        Appliance,
        settings=settings(
            max_examples=WANTED // EACH * 5 // 4 + 3,  # some are shorter
            stateful_step_count=EACH,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            print_blob=True,
        ),
    )
    assert Appliance.steps - begun >= WANTED
