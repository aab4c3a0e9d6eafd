"""Both real loops over a kernel and a cloud in memory, while an operator, other people, faults and crashes interfere.

A state machine of hypothesis chooses what happens next, and how many turns of the event loop later the thing after it;
300 steps here, 10,000 with NEXTHOP_SOAK=1 (`./run soak`). The loop's clock is its own (`tests.appliance.virtualloop`),
so what was found once is found again. After each step, and in the moment of each write (`tests.appliance.watched`),
these hold (I1 to I8 are the invariants of one node):

    I1  we never remove the route of a CIDR that the cloud sends here by an entry of ours, nor one that nexthopd counts
        as carried, nor the entry of a CIDR that is wanted
    I2  what is not ours is never changed: foreign entries stay as somebody made them
    I4  so it is while the database is broken, the cloud away, or either daemon dead
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
import random
from dataclasses import replace
from ipaddress import ip_network
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from appliance.intent import StoreUnavailable
from appliance.kernel.state import Network
from appliance.model import Intent
from cloud.provider import Unavailable
from tests.appliance.node import Node

NETWORKS = tuple(map(ip_network, ("10.1.0.0/16", "10.2.0.0/16", "fd00:1::/64")))
WANTED: Final = 10_000 if os.environ.get("NEXTHOP_SOAK") else 300  # steps
EACH: Final = 50  # steps, in one life of the machine
networks = st.sampled_from(NETWORKS)
turns = st.integers(0, 60)
latencies = st.sampled_from([0.0, 0.01, 0.2, 0.4, 3.0])


class Appliance(RuleBasedStateMachine):
    """The machine."""

    steps = 0

    @initialize()
    def start(self) -> None:
        self.node = Node()

    # ---- the operator -----------------------------------------------------------------------------------------

    @rule(network=networks, snat=st.booleans(), turns=turns)
    def ask(self, network: Network, snat: bool, turns: int) -> None:
        with contextlib.suppress(StoreUnavailable):
            self.node.store.put(Intent(network, "hk", snat))
            self.node.disk.wanted.add(network)
            self.node.disk.once.add(network)
        self.node.loop.turns(turns)

    @rule(network=networks, turns=turns)
    def give_back(self, network: Network, turns: int) -> None:
        with contextlib.suppress(StoreUnavailable, KeyError):
            self.node.store.leave(network)
            self.node.disk.wanted.discard(network)
        self.node.loop.turns(turns)

    @rule(network=networks, pauses=st.lists(turns, min_size=2, max_size=5))
    def the_operator_cannot_decide(self, network: Network, pauses: list[int]) -> None:
        for pause in pauses:
            if network in self.node.disk.wanted:
                self.give_back(network, pause)
            else:
                self.ask(network, True, pause)

    # ---- other people -----------------------------------------------------------------------------------------

    @rule(number=st.integers(0, 9), turns=turns)
    def a_route_is_deleted(self, number: int, turns: int) -> None:
        if self.node.kernel.table:
            table = sorted(self.node.kernel.table, key=str)
            self.node.kernel.table.discard(table[number % len(table)])
            self.node.kernel.change()
        self.node.loop.turns(turns)

    @rule(turns=turns)
    def the_rules_are_flushed(self, turns: int) -> None:
        self.node.firewall.rules = None
        self.node.loop.turns(turns)

    @rule(turns=turns)
    def the_device_is_made_anew(self, turns: int) -> None:
        old = self.node.kernel.devices.pop("tun-hk")
        self.node.kernel.table = {route for route in self.node.kernel.table if route.device is None}
        self.node.kernel.change()
        self.node.loop.turns(turns)
        self.node.kernel.devices["tun-hk"] = replace(old, index=old.index + 1)
        self.node.kernel.change()

    @rule(network=networks, turns=turns)
    def an_entry_of_ours_is_deleted(self, network: Network, turns: int) -> None:
        self.node.cloud.remove(network)
        self.node.loop.turns(turns)

    @rule(network=networks, turns=turns)
    def somebody_makes_an_entry(self, network: Network, turns: int) -> None:
        if not any(each.destination == network for each in self.node.cloud.entries):
            self.node.cloud.somebody_makes(network)
            self.node.theirs = self.node.cloud.foreign()
        self.node.loop.turns(turns)

    @rule(network=networks, turns=turns)
    def somebody_takes_his_entry_back(self, network: Network, turns: int) -> None:
        self.node.cloud.somebody_removes(network)
        self.node.theirs = self.node.cloud.foreign()
        self.node.loop.turns(turns)

    # ---- faults -----------------------------------------------------------------------------------------------

    @rule(done=st.booleans(), turns=turns)
    def the_next_write_to_the_cloud_gets_no_answer(self, done: bool, turns: int) -> None:
        self.node.cloud.mute = done
        self.node.cloud.fail = [] if done else [Unavailable("no answer")]
        self.node.loop.turns(turns)

    @rule(network=networks, turns=turns)
    def a_create_lands_after_all(self, network: Network, turns: int) -> None:
        with contextlib.suppress(StoreUnavailable):
            if network in self.node.disk.once and self.node.store.get(network) is None:
                self.node.cloud.lands_late(network)
        self.node.loop.turns(turns)

    @rule(away=st.booleans(), turns=turns)
    def the_cloud(self, away: bool, turns: int) -> None:
        self.node.cloud.observe_error = Unavailable("no answer") if away else None
        self.node.loop.turns(turns)

    @rule(fault=st.sampled_from([None, "no TCPMSS"]), turns=turns)
    def the_firewall_refuses(self, fault: str | None, turns: int) -> None:
        self.node.firewall.fault = fault
        self.node.loop.turns(turns)

    @rule(broken=st.booleans(), turns=turns)
    def the_disk_is(self, broken: bool, turns: int) -> None:
        self.node.disk.broken = broken
        self.node.loop.turns(turns)

    @rule(there=latencies, back=latencies, turns=turns)
    def the_daemons_hear_each_other_late(self, there: float, back: float, turns: int) -> None:
        self.node.loop.there, self.node.loop.back = there, back
        self.node.loop.turns(turns)

    @rule(turns=turns)
    def nexthopd_dies(self, turns: int) -> None:
        self.node.nexthopd_dies()
        self.node.loop.turns(turns)
        self.node.nexthopd_lives()

    @rule(turns=turns)
    def nexthop_forward_dies(self, turns: int) -> None:
        self.node.forward_dies()
        self.node.loop.turns(turns)
        self.node.forward_lives()

    @rule(seconds=st.sampled_from([0.3, 1.0, 10.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.node.loop.run_until_complete(asyncio.sleep(seconds))

    # ---- what holds -------------------------------------------------------------------------------------------

    @invariant()
    def what_is_not_ours_stays(self) -> None:
        Appliance.steps += 1
        assert self.node.cloud.foreign() == self.node.theirs, "I2"

    @invariant()
    def nothing_was_violated_on_the_way(self) -> None:
        assert not self.node.disk.violations
        assert "nobody thought of" not in (self.node.forward.problem() or "")

    @invariant()
    def no_loop_has_ended_and_nothing_is_left_over(self) -> None:
        assert not self.node.over()
        assert len(asyncio.all_tasks(self.node.loop)) <= 12, "I8"
        assert self.node.loop.ends <= 4, "I8"

    @rule()
    def nobody_interferes_any_more(self) -> None:
        self.node.nobody_interferes()

    def teardown(self) -> None:
        if hasattr(self, "node"):
            try:
                self.node.nobody_interferes()
            finally:
                self.node.end()


def test_whatever_happens_the_invariants_hold() -> None:
    begun = Appliance.steps
    run_state_machine_as_test(
        Appliance,
        settings=settings(
            max_examples=WANTED // EACH * 5 // 4 + 3,  # some are shorter
            stateful_step_count=EACH,
            deadline=None,
            print_blob=True,
        ),
    )
    assert Appliance.steps - begun >= WANTED


def test_the_same_steps_have_the_same_consequences() -> None:
    """Else a fault that was found once could not be found again."""

    def story() -> list[object]:
        machine, chance, seen = Appliance(), random.Random(7), list[object]()
        machine.start()
        node = machine.node
        for _ in range(60):
            network, turns = chance.choice(NETWORKS), chance.randint(0, 60)
            step = chance.choice((machine.ask, machine.give_back, machine.a_route_is_deleted, machine.nexthopd_dies))
            given = {"network": network, "snat": True, "number": 1, "turns": turns}
            step(**{name: given[name] for name in step.__annotations__ if name in given})
            seen.append(
                (node.loop.time(), [*node.kernel.did], [*node.cloud.did], node.kernel.observed, node.cloud.observed)
            )
        machine.teardown()
        return seen

    assert story() == story()
