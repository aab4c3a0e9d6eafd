"""Both real loops over a kernel and a cloud in memory, while an operator, other people, faults and crashes interfere.

A state machine of hypothesis chooses what happens next; 300 steps here, 10,000 with NEXTHOP_SOAK=1 (`./run soak`).
After each step, and in the moment of each write, these hold (I1 to I8 are the invariants of one node):

    I1  we never remove the route of a CIDR that the cloud sends here by an entry of ours, nor that of a wanted one
    I2  what is not ours is never changed: foreign entries stay as somebody made them
    I4  with the database broken nothing that is wanted or that the cloud sends here is removed
    I5  no route to a tunnel is added before the rules and what answers "unreachable" are there
    I6  once nobody interferes any more, kernel and cloud are as the operator wants them
    I7  nothing is there twice, and what was given back leaves nothing behind; a further pass writes nothing
    I8  the number of tasks does not grow
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterator
from ipaddress import ip_network
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from appliance.attract import Attract
from appliance.forward import Forward, Pace
from appliance.forwardserver import ForwardServer
from appliance.guard import Facts
from appliance.intent import IntentStore, StoreUnavailable
from appliance.kernel.rules import Rules
from appliance.kernel.state import Network, Route
from appliance.links import Links
from appliance.model import Intent, Phase
from cloud.provider import CloudError, Duplicate, Owner, Provider, Refusals, Unavailable, Vpc
from tests.appliance.fakes import (
    Ends,
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

NETWORKS = tuple(ip_network(f"10.{number}.0.0/16") for number in (1, 2, 3))
SUBNET = ip_network("100.64.240.0/24")
STEPS, EXAMPLES = (50, 200) if os.environ.get("NEXTHOP_SOAK") else (30, 10)
networks = st.sampled_from(NETWORKS)


class BreakableStore(IntentStore):
    """A real database on a disk that a test can take away."""

    broken = False

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if self.broken:
            raise StoreUnavailable("the disk is gone")
        with super()._reading() as db:
            yield db


class Cloud(FakeCloud):
    """Makes no second entry where somebody else's is, as the real one does not."""

    async def ensure(self, destinations: Collection[Network]) -> Refusals:
        refused: dict[Network, CloudError] = {}
        for destination in destinations:
            if destination in self.foreign():
                self.did.append(("ensure", destination))
                refused[destination] = Duplicate("there is one that is not ours")
            else:
                refused |= await super().ensure([destination])
        return refused

    def ours(self) -> set[Network]:
        return {each.destination for each in self.entries if each.owner is Owner.OURS}

    def foreign(self) -> set[Network]:
        return {each.destination for each in self.entries if each.owner is Owner.FOREIGN}


class Firewall(FakeFirewall):
    """Remembers what it was told last, whoever may have flushed it since."""

    ruled: frozenset[tuple[Network, str]] = frozenset()

    def write(self, rules: Rules) -> None:
        super().write(rules)
        self.ruled = rules.carried


class Kernel(FakeRoutes):
    """Looks at each of our writes in the moment of it."""

    def __init__(self, machine: Appliance) -> None:
        super().__init__(tun())
        self._machine = machine
        self.behind: set[Route] = set()  # what we have put there, whoever may have taken it away since

    async def add(self, route: Route) -> None:
        if route.device is not None:
            self._machine.hold(Route(route.destination, None, 4000) in self.behind, f"I5: nothing behind {route}")
            ruled = route.destination == SUBNET or (route.destination, route.device) in self._machine.firewall.ruled
            self._machine.hold(ruled, f"I5: no rules for {route}")
        else:
            self.behind.add(route)
        await super().add(route)

    async def remove(self, route: Route) -> None:
        machine = self._machine
        machine.hold(route.destination not in machine.cloud.ours(), f"I1: a black hole without {route}")
        machine.hold(route.destination not in machine.wanted, f"I1: {route} is wanted")
        self.behind.discard(route)
        await super().remove(route)


class Appliance(RuleBasedStateMachine):
    """The machine. `wanted` is what the operator was told is wanted."""

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.place = Path(tempfile.mkdtemp(prefix="nh-machine-"))
        make_links(self.place)
        self.wanted: set[Network] = set()
        self.theirs: set[Network] = set()
        self.store = BreakableStore(self.place / "nexthop.db")
        self.cloud = Cloud()
        self.firewall = Firewall()
        self.kernel = Kernel(self)
        self.violations: list[str] = []
        self.live()
        self.turn(self.forward.ready)

    def hold(self, claim: bool, text: str) -> None:
        """Note what does not hold: in the middle of a pass an exception would be caught, and mended."""
        if not claim:
            self.violations.append(text)

    def live(self) -> None:
        """Start both daemons, with nothing remembered but what is on disk."""
        links = Links(self.place, self.place / "run")
        pace = Pace(glance=0.005, whole=60, first_retry=0.002, last_retry=0.004)
        routes, sysctls = self.kernel, FakeSysctls()

        def make(server: ForwardServer) -> Forward:
            return Forward(
                *(self.store, links, routes, chosen(self.firewall), server),
                sysctls=sysctls,
                pace=pace,
                jitter=lambda: 0.5,
            )

        self.ends = Ends(self.place, self.store, links, make)
        self.privileged: list[asyncio.Task[None]] = []
        self.others: list[asyncio.Task[None]] = []
        self.forward_lives()
        self.nexthopd_lives()

    def forward_lives(self) -> None:
        runs = (self.ends.server.run(self.ends.forward), self.ends.forward.run())
        self.privileged = [self.loop.create_task(each) for each in runs]

    def nexthopd_lives(self) -> None:
        async def connect() -> Provider:
            return self.cloud

        async def facts(vpc: Vpc) -> Facts:
            return Facts(vpc=vpc, intents=self.store.all(), links=frozenset({"hk"}))

        self.attract = Attract(
            self.store, connect, self.ends.client, facts, resync=0.01, first_retry=0.002, jitter=lambda: 0.5
        )
        self.others = [self.loop.create_task(each.run()) for each in (self.ends.client, self.attract)]

    @property
    def forward(self) -> Forward:
        return self.ends.forward

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        return [*self.privileged, *self.others]

    def die(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        results = self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    def turn(self, condition: Callable[[], object]) -> None:
        async def wait() -> None:
            await until(lambda: condition() or any(task.done() for task in self.tasks))

        self.loop.run_until_complete(wait())
        for task in self.tasks:
            assert not task.done(), task.exception()

    def some(self, turns: int) -> None:
        """Let the loops run on for a little while, to no particular point."""

        async def pause() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(pause())

    # ---- the operator -----------------------------------------------------------------------------------------

    @rule(network=networks, snat=st.booleans(), turns=st.integers(0, 60))
    def ask(self, network: Network, snat: bool, turns: int) -> None:
        with contextlib.suppress(StoreUnavailable):
            self.store.put(Intent(network, "hk", snat))
            self.wanted.add(network)
        self.some(turns)

    @rule(network=networks, turns=st.integers(0, 60))
    def give_back(self, network: Network, turns: int) -> None:
        with contextlib.suppress(StoreUnavailable, KeyError):
            self.store.leave(network)
            self.wanted.discard(network)
        self.some(turns)

    # ---- other people -----------------------------------------------------------------------------------------

    @rule(number=st.integers(0, 9), turns=st.integers(0, 60))
    def a_route_is_deleted(self, number: int, turns: int) -> None:
        if self.kernel.table:
            table = sorted(self.kernel.table, key=str)
            self.kernel.table.discard(table[number % len(table)])
            self.kernel.change()
        self.some(turns)

    @rule()
    def the_rules_are_flushed(self) -> None:
        self.firewall.rules = None

    @rule(turns=st.integers(0, 60))
    def the_device_is_made_anew(self, turns: int) -> None:
        old = self.kernel.devices.pop("tun-hk", None)
        self.kernel.table = {route for route in self.kernel.table if route.device is None}
        self.kernel.change()
        self.some(turns)
        self.kernel.devices["tun-hk"] = tun(index=old.index + 1 if old else 7)
        self.kernel.change()

    @rule(network=networks)
    def an_entry_of_ours_is_deleted(self, network: Network) -> None:
        self.cloud.remove(network)

    @rule(network=networks)
    def somebody_makes_an_entry(self, network: Network) -> None:
        if not self.cloud.observed or network in self.cloud.ours() | self.cloud.foreign() or self.cloud.gate:
            return
        self.cloud.entries += [entry(network, table, Owner.FOREIGN, "i-other") for table in self.cloud.vpc.tables]
        self.theirs.add(network)

    @rule(network=networks)
    def somebody_takes_his_entry_back(self, network: Network) -> None:
        self.cloud.entries = [
            each for each in self.cloud.entries if each.destination != network or each.owner is not Owner.FOREIGN
        ]
        self.theirs.discard(network)

    # ---- faults -----------------------------------------------------------------------------------------------

    @rule(lands=st.booleans())
    def the_next_write_to_the_cloud_gets_no_answer(self, lands: bool) -> None:
        self.cloud.fail = [Unavailable("no answer")]
        self.cloud.lands = lands

    @rule()
    def the_cloud_is_away(self) -> None:
        self.cloud.observe_error = Unavailable("no answer")

    @rule()
    def the_cloud_is_back(self) -> None:
        self.cloud.observe_error, self.cloud.lands = None, True

    @rule(fault=st.sampled_from([None, "no TCPMSS"]))
    def the_firewall_refuses(self, fault: str | None) -> None:
        self.firewall.fault = fault

    @rule(broken=st.booleans(), turns=st.integers(0, 60))
    def the_disk(self, broken: bool, turns: int) -> None:
        self.store.broken = broken
        self.some(turns)

    @rule(turns=st.integers(0, 60))
    def nexthopd_dies(self, turns: int) -> None:
        self.die(self.others)
        self.some(turns)
        self.ends.daemon_dies()
        self.nexthopd_lives()

    @rule(turns=st.integers(0, 60))
    def nexthop_forward_dies(self, turns: int) -> None:
        self.die(self.privileged)
        self.some(turns)
        self.ends.forward_dies()
        self.forward_lives()

    # ---- what holds -------------------------------------------------------------------------------------------

    @invariant()
    def what_is_not_ours_stays(self) -> None:
        assert self.cloud.foreign() == self.theirs, "I2"

    @invariant()
    def nothing_was_violated_on_the_way(self) -> None:
        assert not self.violations
        assert "nobody thought of" not in (self.forward.problem() or "")

    @invariant()
    def no_loop_has_ended_and_no_task_is_left_over(self) -> None:
        assert not any(task.done() for task in self.tasks)
        assert len(asyncio.all_tasks(self.loop)) <= 12, "I8"

    @rule()
    def nobody_interferes_any_more(self) -> None:
        """Let all settle: everywhere it is as the operator wants it."""
        self.store.broken, self.firewall.fault = False, None
        self.cloud.observe_error, self.cloud.lands, self.cloud.fail = None, True, []
        self.kernel.devices.setdefault("tun-hk", tun())
        self.forward.wake()
        self.attract.wake()
        self.turn(self.is_settled)
        writes, did, sent = self.firewall.writes, len(self.kernel.did), len(self.cloud.did)
        seen, observed = self.kernel.observed, self.cloud.observed
        self.forward.wake()
        self.attract.wake()
        self.turn(lambda: self.kernel.observed > seen and self.cloud.observed > observed + 1)
        assert (self.firewall.writes, len(self.kernel.did), len(self.cloud.did)) == (writes, did, sent), "I7"

    def is_settled(self) -> bool:
        through = {Route(network, "tun-hk", 50) for network in self.wanted}
        behind = {Route(network, None, 4000) for network in (*self.wanted, SUBNET)}
        entries = [each.destination for each in self.cloud.entries if each.owner is Owner.OURS]
        rules = self.firewall.rules
        return (
            {intent.network: intent.phase for intent in self.store.all()} == dict.fromkeys(self.wanted, Phase.PRESENT)
            and self.kernel.table == through | behind | {Route(SUBNET, "tun-hk", 50)}
            and sorted(entries, key=str) == sorted([*(self.wanted - self.theirs)] * len(self.cloud.vpc.tables), key=str)
            and rules is not None
            and {network for network, _ in rules.carried} == self.wanted
            and {network for network, _ in rules.masquerade} == {each.network for each in self.store.all() if each.snat}
            and self.forward.carrying == self.wanted
            and self.ends.client.carrying == self.wanted
        )

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.nobody_interferes_any_more()
        finally:
            with contextlib.suppress(BaseException):
                self.die(self.tasks)
            self.store.broken = False
            self.store.close()
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.place)


TestAppliance = Appliance.TestCase
TestAppliance.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
