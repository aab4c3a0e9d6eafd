"""What the cloud refuses, what it does not answer, and what is our own fault."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from appliance.attract import _Seen
from appliance.entries import classify
from appliance.guard import Facts
from appliance.model import Intent, Phase
from appliance.reconcile import AttractStep, Entry
from appliance.status import LayerState
from cloud.provider import (
    CloudError,
    Conflict,
    Denied,
    Duplicate,
    EntryStatus,
    Observation,
    Owner,
    QuotaExceeded,
    Rejected,
    Throttled,
    Unavailable,
)
from tests.appliance.attract_bench import running
from tests.appliance.fakes import POD, SERVICE, VPC, entry, until

OTHER = ip_network("10.9.0.0/16")


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


LASTING = [Unavailable("x", code="NeverHeardOf.That"), Conflict("x"), Denied("not in this table"), Rejected("no")]


@pytest.mark.parametrize("error", LASTING)
def test_what_stops_one_cidr_whatever_it_is_stops_no_other(tmp_path: Path, error: CloudError) -> None:
    async def scenario() -> None:
        async with running(tmp_path, resync=30) as bench:
            await until(lambda: bench.attract.vpc() is not None)
            bench.cloud.lasting = {SERVICE: error}
            bench.store.put(Intent(SERVICE, "hk"))
            bench.store.put(Intent(POD, "hk"))
            bench.forward.carry(POD, SERVICE)
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)
            await bench.settled()
            assert bench.attract.layer(SERVICE).state is LayerState.ERROR
            assert error.code in bench.attract.layer(SERVICE).detail
            assert bench.attract.error is None
            bench.store.leave(POD)
            await until(lambda: (found := bench.store.get(POD)) is not None and found.phase is Phase.WITHDRAWN)
            assert bench.cloud.did.count(("ensure", SERVICE)) == 1  # not again at each pass

    asyncio.run(scenario())


@pytest.mark.parametrize("error", LASTING)
def test_what_the_cloud_does_not_let_go_of_is_shown_and_not_asked_for_in_each_pass(
    tmp_path: Path, error: CloudError
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, resync=30) as bench:
            bench.forward.carry(POD, SERVICE)
            bench.store.put(Intent(POD, "hk"))
            bench.store.put(Intent(SERVICE, "hk"))
            await until(lambda: bench.attract.layer(POD).state is bench.attract.layer(SERVICE).state is LayerState.OK)
            bench.cloud.lasting = {POD: error}
            bench.store.leave(POD)
            bench.store.leave(SERVICE)
            await until(lambda: (found := bench.store.get(SERVICE)) is not None and found.phase is Phase.WITHDRAWN)
            await bench.settled()
            assert bench.attract.layer(POD).state is LayerState.ERROR
            assert bench.cloud.did.count(("withdraw", POD)) == 1
            bench.store.put(Intent(POD, "hk"))  # another wish is not held up by what became of the one before
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)
            bench.cloud.lasting = {}
            bench.store.leave(POD)
            await until(lambda: (found := bench.store.get(POD)) is not None and found.phase is Phase.WITHDRAWN)

    asyncio.run(scenario())


def test_what_was_refused_for_a_passing_reason_is_tried_again_before_the_next_resync(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, resync=1.0) as bench:
            bench.cloud.lasting = {POD: Conflict("busy")}
            bench.forward.carry(POD)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).code == "cloud-busy")
            assert bench.attract._rest < 0.1
            await until(lambda: bench.cloud.did.count(("ensure", POD)) > 2)
            bench.cloud.lasting = {}
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)

    asyncio.run(scenario())


def test_what_was_refused_before_is_sent_after_all_that_was_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, resync=0.05) as bench:
            bench.cloud.lasting = {SERVICE: Conflict("busy")}
            bench.forward.carry(SERVICE, POD)
            bench.store.put(Intent(SERVICE, "hk"))
            await until(lambda: bench.attract.layer(SERVICE).code == "cloud-busy")
            seen = _Seen(Observation(VPC, ()), Facts(), frozenset(), ensure=[SERVICE, POD], withdraw=[OTHER])
            assert bench.attract._parts(seen) == [
                (AttractStep.ENSURE, [POD]),
                (AttractStep.WITHDRAW, [OTHER]),
                (AttractStep.ENSURE, [SERVICE]),
            ]

    asyncio.run(scenario())


def test_what_is_taken_back_is_withdrawn_even_where_adding_fails_as_a_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.forward.carry(POD, SERVICE)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)
            denied = Denied("no", code="Forbidden.RAM")
            bench.cloud.whole = {"ensure": denied}
            bench.store.put(Intent(SERVICE, "hk"))
            await until(lambda: bench.attract.error is denied)
            bench.store.leave(POD)
            await until(lambda: (found := bench.store.get(POD)) is not None and found.phase is Phase.WITHDRAWN)
            assert bench.attract.error is denied

    asyncio.run(scenario())


def test_an_error_about_the_whole_holds_up_only_what_had_been_given_up_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.entryrequests._AT_ONCE", 1)

    async def scenario() -> None:
        async with running(tmp_path, resync=30) as bench:
            await until(lambda: bench.attract.vpc() is not None)
            bench.cloud.whole = {"ensure": Unavailable("x", code="NeverHeardOf.That")}
            bench.store.put(Intent(SERVICE, "hk"))
            bench.store.put(Intent(POD, "hk"))
            bench.forward.carry(POD, SERVICE)
            await until(lambda: {("ensure", SERVICE), ("ensure", POD)} <= set(bench.cloud.did))
            assert bench.cloud.did.count(("ensure", SERVICE)) == 1

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
            await bench.attracting(POD)

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
