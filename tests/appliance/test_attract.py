from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from appliance.attract import Attract, NotAdoptable
from appliance.entries import classify
from appliance.guard import Facts
from appliance.intent import IntentStore
from appliance.model import Intent, Network, Phase
from appliance.reconcile import Entry
from appliance.status import LayerState
from cloud.provider import (
    CloudError,
    Conflict,
    Denied,
    Duplicate,
    EntryStatus,
    Observation,
    Owner,
    Provider,
    QuotaExceeded,
    Rejected,
    Throttled,
    Unavailable,
    Vpc,
)
from tests.appliance.fakes import POD, SERVICE, VPC, FakeCloud, entry, until


@dataclass
class FakeForward:
    carrying: frozenset[Network] = frozenset()
    callbacks: list[Callable[[], None]] = field(default_factory=list)

    def on_carrying(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def carry(self, *networks: Network) -> None:
        self.carrying = frozenset(networks)
        for callback in self.callbacks:
            callback()


@dataclass
class Bench:
    store: IntentStore
    cloud: FakeCloud
    forward: FakeForward
    attract: Attract
    facts: Facts = field(default_factory=lambda: Facts(links=frozenset({"hk"})))
    connect_error: CloudError | None = None

    async def settled(self) -> None:
        """Wait for a whole pass that sent nothing."""
        while True:
            did, observed = len(self.cloud.did), self.cloud.observed
            self.attract.wake()
            await until(lambda before=observed: self.cloud.observed > before + 1 or self._idle(before))  # type: ignore[misc]
            if did == len(self.cloud.did):
                return

    def _idle(self, before: int) -> bool:
        return self.cloud.observed > before and not self.attract._wake.is_set()


@contextlib.asynccontextmanager
async def running(tmp_path: Path, *, clouded: bool = True, resync: float = 0.05) -> AsyncIterator[Bench]:
    store, cloud, forward = IntentStore(tmp_path / "nexthop.db"), FakeCloud(), FakeForward()

    async def connect() -> Provider:
        if bench.connect_error is not None:
            raise bench.connect_error
        return cloud

    async def facts(vpc: Vpc) -> Facts:
        return replace(bench.facts, vpc=vpc, intents=store.all())

    attract = Attract(
        store, connect if clouded else None, forward, facts, resync=resync, first_retry=0.01, jitter=lambda: 0.5
    )
    bench = Bench(store, cloud, forward, attract)
    task = asyncio.get_running_loop().create_task(attract.run())
    try:
        yield bench
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        store.close()


def test_wants_only_what_the_kernel_carries(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).code == "waiting-kernel")
            assert bench.cloud.did == []
            bench.forward.carry(POD)
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)
            assert bench.cloud.did == [("ensure", POD)]
            assert {e.table for e in bench.cloud.entries} == {"vtb-1", "vtb-2"}

    asyncio.run(scenario())


def test_an_entry_stays_while_the_kernel_repairs_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.forward.carry(POD)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)
            bench.forward.carry()
            await bench.settled()
            assert bench.cloud.did == [("ensure", POD)]

    asyncio.run(scenario())


def test_marks_withdrawn_only_after_a_pass_that_saw_nothing_and_sent_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.forward.carry(POD)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)
            bench.cloud.lands = False  # the answer says done, but it is not
            bench.store.leave(POD)
            await until(lambda: bench.cloud.did.count(("withdraw", POD)) > 2)
            intent = bench.store.get(POD)
            assert intent is not None
            assert intent.phase is Phase.LEAVING
            bench.cloud.lands = True
            await until(lambda: (found := bench.store.get(POD)) is not None and found.phase is Phase.WITHDRAWN)
            assert bench.cloud.entries == []

    asyncio.run(scenario())


def test_a_leaving_cidr_whose_request_is_under_way_is_not_marked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.cloud.gate = asyncio.Event()
            bench.forward.carry(POD)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.cloud.did == [("ensure", POD)])
            bench.store.leave(POD)
            await asyncio.sleep(0)
            assert bench.store.get(POD) == replace(bench.store.all()[0], phase=Phase.LEAVING)
            bench.cloud.gate.set()
            await until(lambda: (found := bench.store.get(POD)) is not None and found.phase is Phase.WITHDRAWN)
            assert bench.cloud.did == [("ensure", POD), ("withdraw", POD)]

    asyncio.run(scenario())


def test_a_second_pass_without_change_sends_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.forward.carry(POD)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)
            await bench.settled()
            await bench.settled()
            assert bench.cloud.did == [("ensure", POD)]

    asyncio.run(scenario())


def test_looks_again_between_two_requests_when_something_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.attract._AT_ONCE", 1)

    async def scenario() -> None:
        async with running(tmp_path) as bench:
            first, second, third = (ip_network(f"10.{i}.0.0/16") for i in (1, 2, 3))
            bench.store.put(Intent(first, "hk"))
            bench.store.put(Intent(third, "hk"))
            await until(lambda: bench.attract.layer(third).code == "waiting-kernel")
            bench.cloud.gate = asyncio.Event()
            bench.forward.carry(first, second, third)
            await until(lambda: bench.cloud.did == [("ensure", first)])
            bench.store.put(Intent(second, "hk"))
            bench.cloud.gate.set()
            await until(lambda: bench.attract.layer(third).state is LayerState.OK)
            assert bench.cloud.did == [("ensure", first), ("ensure", second), ("ensure", third)]

    asyncio.run(scenario())


def test_many_are_asked_for_together_and_given_back_together(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            many = [ip_network(f"10.{i}.0.0/16") for i in range(60)]
            for network in many:
                bench.store.put(Intent(network, "hk"))
            await until(lambda: bench.attract.layer(many[-1]).code == "waiting-kernel")
            bench.forward.carry(*many)
            await until(lambda: all(bench.attract.layer(network).state is LayerState.OK for network in many))
            for network in many:
                bench.store.leave(network)
            await until(lambda: all(intent.phase is Phase.WITHDRAWN for intent in bench.store.all()))
            asked = [len(networks) for what, networks in bench.cloud.requests if what == "ensure"]
            assert asked == [50, 10]
            assert sum(len(networks) for what, networks in bench.cloud.requests if what == "withdraw") == 60

    asyncio.run(scenario())


def test_a_cidr_that_was_given_back_meanwhile_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.attract._AT_ONCE", 1)

    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.store.put(Intent(SERVICE, "hk"))
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).code == "waiting-kernel")
            bench.cloud.gate = asyncio.Event()
            bench.forward.carry(POD, SERVICE)
            await until(lambda: bench.cloud.did == [("ensure", SERVICE)])
            bench.store.leave(POD)
            bench.cloud.gate.set()
            await until(lambda: (found := bench.store.get(POD)) is not None and found.phase is Phase.WITHDRAWN)
            assert bench.cloud.did == [("ensure", SERVICE)]

    asyncio.run(scenario())


def history(bench: Bench, what: str) -> list[str]:
    return [event.detail for event in bench.store.history() if event.what == what]


def test_what_somebody_deleted_is_in_the_history_as_drift_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.forward.carry(POD)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)
            assert history(bench, "drift") == []
            bench.cloud.entries = [e for e in bench.cloud.entries if e.table != "vtb-2"]
            await until(lambda: bench.cloud.did == [("ensure", POD)] * 2)
            await bench.settled()
            (detail,) = history(bench, "drift")
            assert "vtb-2: none" in detail
            assert bench.attract.repairs() == {"cloud-drift": 1}

    asyncio.run(scenario())


def test_what_somebody_pointed_elsewhere_is_a_conflict_until_it_is_adopted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.forward.carry(POD)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)
            first = replace(bench.cloud.entries[0], owner=Owner.CHANGED, next_hop="i-other")
            bench.cloud.entries[0] = first
            await until(lambda: bench.attract.layer(POD).code == "changed-by-hand")
            assert "i-other" in bench.attract.layer(POD).detail
            await bench.settled()
            assert bench.cloud.did == [("ensure", POD)]
            assert len(history(bench, "conflict")) == 1
            await bench.attract.adopt(POD)
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)
            assert bench.cloud.did == [("ensure", POD), ("adopt", POD)]
            assert len(history(bench, "adopted")) == 1

    asyncio.run(scenario())


def test_only_what_is_asked_for_and_carried_is_adopted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.cloud.entries = [entry(POD, "vtb-1", Owner.FOREIGN, "i-other")]
            await until(lambda: bench.attract.vpc() is not None)
            for expected in ("cidr-unknown", "not-carried"):
                with pytest.raises(NotAdoptable) as caught:
                    await bench.attract.adopt(POD)
                assert caught.value.code == expected
                bench.store.put(Intent(POD, "hk"))
            assert bench.cloud.did == []

    asyncio.run(scenario())


def test_a_stray_goes_when_a_person_says_so_and_not_before(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.cloud.entries = [entry(POD, "vtb-1"), entry(SERVICE, "vtb-1")]
            await until(lambda: bench.attract.status().strays == (POD, SERVICE))
            bench.store.release(POD)
            await until(lambda: bench.attract.status().strays == (SERVICE,))
            assert bench.cloud.did == [("withdraw", POD)]

    asyncio.run(scenario())


def test_a_foreign_entry_is_shown_and_never_touched(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            theirs = replace(entry(POD, "vtb-2", Owner.FOREIGN, "i-other"), name="payroll")
            bench.cloud.entries = [theirs]
            bench.forward.carry(POD)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).code == "foreign-entry")
            layer = bench.attract.layer(POD)
            assert layer.state is LayerState.ERROR
            assert all(word in layer.detail for word in ("vtb-2", "i-other", "payroll"))
            bench.store.leave(POD)
            await until(lambda: (found := bench.store.get(POD)) is not None and found.phase is Phase.WITHDRAWN)
            assert bench.cloud.did == []
            assert bench.cloud.entries == [theirs]

    asyncio.run(scenario())


def test_an_entry_that_somebody_deletes_comes_back_at_the_next_resync(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.forward.carry(POD)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)
            bench.cloud.entries.pop()
            await until(lambda: bench.cloud.did == [("ensure", POD)] * 2)
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)

    asyncio.run(scenario())


def test_an_entry_of_ours_that_nobody_asked_for_is_shown_and_left_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.cloud.entries = [entry(POD, "vtb-1"), entry(SERVICE, "vtb-1", Owner.FOREIGN)]
            await until(lambda: bench.attract.status().strays == (POD,))
            await bench.settled()
            assert bench.cloud.did == []

    asyncio.run(scenario())


def test_a_request_that_lands_after_the_cidr_was_given_back_is_undone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.store.put(Intent(POD, "hk"))
            bench.store.leave(POD)
            await until(lambda: (found := bench.store.get(POD)) is not None and found.phase is Phase.WITHDRAWN)
            bench.store.drop(POD)
            bench.cloud.entries = [entry(POD)]  # sent by a daemon that is dead by now
            await until(lambda: bench.cloud.did == [("withdraw", POD)] and not bench.cloud.entries)
            assert bench.attract.status().strays == ()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "code"),
    [(Duplicate("taken"), "foreign-entry"), (QuotaExceeded("full"), "cloud-quota"), (Rejected("no"), "cloud-rejected")],
)
def test_what_concerns_one_cidr_does_not_stop_the_others(tmp_path: Path, error: CloudError, code: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path, resync=30) as bench:
            await until(lambda: bench.attract.vpc() is not None)
            bench.cloud.fail = [error]
            bench.store.put(Intent(SERVICE, "hk"))
            bench.store.put(Intent(POD, "hk"))
            bench.forward.carry(POD, SERVICE)
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)
            await bench.settled()
            assert bench.attract.layer(SERVICE).code == code
            assert bench.attract.error is None
            assert bench.cloud.did.count(("ensure", SERVICE)) == 1  # not again at each pass

    asyncio.run(scenario())


def test_what_the_cloud_refused_is_tried_again_when_the_operator_changes_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, resync=30) as bench:
            bench.cloud.fail = [Rejected("no")]
            bench.forward.carry(POD)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).code == "cloud-rejected")
            bench.store.put(Intent(POD, "hk", comment="again"))
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Throttled("slow down", code="Throttling.User"), "cloud-throttled"),
        (Conflict("busy", code="TaskConflict"), "cloud-busy"),
        (Unavailable("no answer"), "cloud-unavailable"),
        (Denied("no", code="Forbidden.RAM", request_id="42"), "cloud-denied"),
    ],
)
def test_what_concerns_the_cloud_is_shown_and_tried_again(tmp_path: Path, error: CloudError, code: str) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.cloud.observe_error = error
            bench.forward.carry(POD)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.error is error)
            problem = bench.attract.status().error
            assert problem is not None
            assert problem.code == code
            assert error.code in problem.text
            assert error.request_id in problem.text
            denied = isinstance(error, Denied)
            assert bench.attract.layer(POD).state is (LayerState.ERROR if denied else LayerState.PENDING)
            assert bench.attract.layer(POD).code == code
            bench.cloud.observe_error = None
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)
            assert bench.attract.error is None

    asyncio.run(scenario())


def test_starts_without_its_cloud_and_connects_later(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.connect_error = Unavailable("no metadata service")
            await until(lambda: bench.attract.error is not None)
            assert bench.attract.vpc() is None
            bench.connect_error = None
            await until(lambda: bench.attract.vpc() == VPC)

    asyncio.run(scenario())


def test_the_guard_is_asked_again_in_every_pass(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            grown = ip_network("172.18.3.0/24")
            bench.store.put(Intent(grown, "hk"))
            await until(lambda: bench.attract.layer(grown).code == "waiting-kernel")
            bench.cloud.vpc = replace(VPC, vswitches=(*VPC.vswitches, ("vsw-3", grown)))
            bench.forward.carry(grown)
            await until(lambda: bench.attract.layer(grown).code == "overlaps-vswitch")
            assert bench.attract.layer(grown).state is LayerState.ERROR
            assert bench.cloud.did == []
            bench.cloud.vpc = VPC
            await until(lambda: bench.attract.layer(grown).state is LayerState.OK)

    asyncio.run(scenario())


def test_without_a_cloud_a_leaving_cidr_is_withdrawn_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, clouded=False) as bench:
            bench.store.put(Intent(POD, "hk"))
            assert bench.attract.layer(POD).state is LayerState.ABSENT
            bench.store.leave(POD)
            await until(lambda: (found := bench.store.get(POD)) is not None and found.phase is Phase.WITHDRAWN)
            assert bench.attract.status().provider == "none"

    asyncio.run(scenario())


def test_a_fault_of_ours_is_shown_and_does_not_end_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            with monkeypatch.context() as patch:
                patch.setattr(bench.store, "released", lambda: 1 / 0)
                bench.attract.wake()
                await until(lambda: (found := bench.attract.status().error) is not None and "ZeroDiv" in found.text)
            bench.forward.carry(POD)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)

    asyncio.run(scenario())


def test_an_entry_is_ready_only_when_every_table_has_it_settled_and_pointing_here() -> None:
    whole = [entry(POD, "vtb-1"), entry(POD, "vtb-2")]
    foreign = entry(POD, "vtb-2", Owner.FOREIGN)
    cases = {
        Entry.ABSENT: [[], [entry(SERVICE)]],
        Entry.READY: [whole],
        Entry.UNSETTLED: [
            whole[:1],
            [whole[0], replace(whole[1], status=EntryStatus.PENDING)],
            [whole[0], replace(whole[1], next_hop="i-2")],
        ],
        Entry.FOREIGN: [[foreign], [entry(POD, "vtb-1", Owner.SYSTEM)]],
        Entry.MIXED: [[whole[0], foreign]],
    }
    for expected, tables in cases.items():
        for entries in tables:
            assert classify(Observation(VPC, tuple(entries)), POD) is expected
