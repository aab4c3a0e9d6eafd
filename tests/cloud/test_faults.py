"""Whatever the cloud does, these hold: an entry that is not ours is never changed; what is wanted and Available stays
until it is given back; never two writes at once; no duplicate; and when the faults stop, the end state comes.

300 steps in `./run test`, 5,000 with NEXTHOP_SOAK=1 (`./run soak`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from cloud.answers import Mark
from cloud.emulator.world import Change, Entry, NextHop, Wanted
from cloud.provider import CloudError, Conflict, Denied, QuotaExceeded, Throttled, Unavailable
from cloud.retry import Pace
from tests.cloud.direct import ROOMY, Direct, Fault, flat
from tests.cloud.world import world_file

SOAK = os.environ.get("NEXTHOP_SOAK") == "1"
STEPS = 50
EXAMPLES = (5000 if SOAK else 300) // STEPS

TABLES = ("vtb-system", "vtb-other")
CIDRS = [IPv4Network(f"10.{n}.0.0/16") for n in range(12)]
THEIRS = [IPv4Network(f"10.{n}.0.0/16") for n in (0, 1)]  # a stranger sits on these in one table
PATIENT = Pace(first=0.0, longest=0.0, tries=6, poll=0.0, settle=5.0)
FAULTS: list[Fault] = [
    None,
    "late",
    "lost",
    Conflict("busy", code="TaskConflict"),
    Throttled("slow", code="Throttling.User"),
    Unavailable("oops", code="InternalError"),
    Unavailable("oops", code="ServiceUnavailable"),
    Denied("revoked", code="Forbidden.RAM"),
    Denied("old", code="InvalidSecurityToken.Expired"),
    QuotaExceeded("full", code="QuotaExceeded"),
]
some = st.lists(st.sampled_from(CIDRS), min_size=1, max_size=10, unique=True)


class Unruly(Direct):
    """Reads fail, lag and lose their ends, too."""

    def __init__(self) -> None:
        super().__init__(file=world_file(settle_ms=25))
        self.reads: list[str | CloudError | None] = []

    async def __call__(self, action: str, params: Mapping[str, Any]) -> dict[str, Any]:
        trouble = self.reads.pop(0) if self.reads and action.startswith("Describe") else None
        if isinstance(trouble, CloudError):
            raise trouble
        if trouble == "stale":
            now, world = self.now, self.world
            self.world = world.as_of(now - 0.5)
            try:
                return self._act(action, params, None)
            finally:
                self.world = world
        answer = await super().__call__(action, params)
        if trouble == "lost-page" and "RouteEntrys" in answer:
            answer = answer | {"RouteEntrys": {"RouteEntry": answer["RouteEntrys"]["RouteEntry"][:2]}, "NextToken": ""}
        return answer


class Provided(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cloud = Unruly()
        self.cloud.watch = self.look
        self.provider = self.cloud.provider(Mark("a"), pace=PATIENT, quota=ROOMY)
        self.wanted: dict[IPv4Network, bool] = {}
        self.safe: set[tuple[str, IPv4Network]] = set()  # Available once, wanted, and not given back since
        self.foreign: dict[str, Entry] = {}

    @initialize()
    def strangers(self) -> None:
        for cidr in THEIRS:
            made = self.cloud.world.create(Wanted(TABLES[0], str(cidr), NextHop("Instance", "i-host")), -100.0)
            self.foreign[made] = next(e for e in self.cloud.world.entries(TABLES[0], self.cloud.now) if e.id == made)

    def entries(self) -> Iterator[Entry]:
        for table in TABLES:
            yield from (entry for entry in self.cloud.world.entries(table, self.cloud.now) if entry.custom)

    def look(self) -> None:
        """After every single call."""
        found = list(self.entries())
        spots = [(entry.table, entry.destination) for entry in found]
        assert len(spots) == len(set(spots)), "an entry is there twice"
        for name, before in self.foreign.items():
            assert before in found, f"the stranger {name} was touched"
        there = {(e.table, e.destination) for e in found if e.status == "Available" and e.id not in self.foreign}
        routed = {(hop.table, hop.destination) for hop in self.cloud.world.hops(self.cloud.now)}
        missing = self.safe - set(spots)
        assert not missing, f"wanted, was Available, and is gone: {missing}"
        assert self.safe <= routed, "the data plane lost what the table holds"
        self.safe |= {spot for spot in there if self.wanted.get(spot[1])}

    def _try(self, there: bool, cidrs: list[IPv4Network]) -> None:
        for cidr in cidrs:
            self.wanted[cidr] = there
        if not there:
            self.safe = {spot for spot in self.safe if spot[1] not in cidrs}
        act = self.provider.ensure if there else self.provider.withdraw
        with contextlib.suppress(CloudError):
            asyncio.run(act(cidrs))

    @rule(cidrs=some, writes=st.lists(st.sampled_from(FAULTS), max_size=6))
    def ensure(self, cidrs: list[IPv4Network], writes: list[Fault]) -> None:
        self.cloud.faults = list(writes)
        self._try(True, cidrs)

    @rule(cidrs=some, writes=st.lists(st.sampled_from(FAULTS), max_size=6))
    def withdraw(self, cidrs: list[IPv4Network], writes: list[Fault]) -> None:
        self.cloud.faults = list(writes)
        self._try(False, cidrs)

    @rule(
        troubles=st.lists(
            st.sampled_from([None, "stale", "lost-page", Unavailable("oops"), Throttled("slow")]), max_size=6
        )
    )
    def reading_fails(self, troubles: list[str | CloudError | None]) -> None:
        self.cloud.reads = list(troubles)

    @rule(seconds=st.sampled_from([0.01, 0.1, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.cloud.now += seconds

    @rule(cidr=st.sampled_from(CIDRS), point=st.booleans())
    def somebody_uses_the_console(self, cidr: IPv4Network, point: bool) -> None:
        """Delete our entry, or point it elsewhere; from then on the latter is theirs."""
        self.cloud.now += 60.0
        for entry in list(self.entries()):
            if entry.destination != cidr or entry.id in self.foreign:
                continue
            self.safe.discard((entry.table, cidr))
            if point and entry.hop.id != "i-host":
                self.cloud.world.modify(entry.id, Change(hop=NextHop("Instance", "i-host")), self.cloud.now)
                self.cloud.now += 60.0
                self.foreign[entry.id] = next(each for each in self.entries() if each.id == entry.id)
            else:
                self.cloud.world.delete(entry.id, self.cloud.now)
                self.cloud.now += 60.0

    @rule()
    def all_is_well_again(self) -> None:
        self._settle()

    @invariant()
    def nothing_is_under_way(self) -> None:
        assert self.cloud.under_way == 0

    def teardown(self) -> None:
        self._settle()

    def _settle(self) -> None:
        """When the faults stop, the end state comes, and a second apply sends nothing."""
        self.cloud.faults, self.cloud.reads = [], []
        self.cloud.now += 60.0
        for again in (False, True):
            sent = len(self.cloud.writes())
            for there in (True, False):
                cidrs = [cidr for cidr, wanted in self.wanted.items() if wanted is there]
                asyncio.run((self.provider.ensure if there else self.provider.withdraw)(cidrs))
            assert not again or len(self.cloud.writes()) == sent
        self.cloud.now += 60.0
        blocked = {(entry.table, entry.destination) for entry in self.foreign.values()}
        ours = {(entry.table, entry.destination) for entry in self.entries() if entry.id not in self.foreign}
        wanted = {(table, cidr) for table in TABLES for cidr, there in self.wanted.items() if there}
        assert ours == wanted - blocked


@pytest.fixture
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet")
def test_the_invariants_hold_whatever_the_cloud_does() -> None:
    run_state_machine_as_test(
        Provided,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )


def test_lists_are_spelled_as_the_wire_has_them() -> None:
    assert flat({"A": "a", "B": [{"C": "1"}, {"C": "2"}]}) == {"A": "a", "B.1.C": "1", "B.2.C": "2"}
