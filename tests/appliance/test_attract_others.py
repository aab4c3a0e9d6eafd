"""What other people do to the route tables, and what becomes of entries that nobody asked for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.adopt import NotAdoptable
from appliance.model import Intent, Phase
from appliance.reconcile import Withhold
from appliance.status import LayerState
from cloud.provider import (
    Owner,
)
from tests.appliance.attract_bench import Bench, running
from tests.appliance.fakes import POD, SERVICE, VPC, entry, until


def history(bench: Bench, what: str) -> list[str]:
    return [event.detail for event in bench.store.history() if event.what == what]


def test_what_somebody_deleted_is_in_the_history_as_drift_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            await bench.attracting(POD)
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
            await bench.attracting(POD)
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
            await bench.attracting(POD)
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
            bench.store.drop(POD, bench.store.all()[0].revision)
            bench.cloud.entries = [entry(POD)]  # sent by a daemon that is dead by now
            await until(lambda: bench.cloud.did == [("withdraw", POD)] and not bench.cloud.entries)
            assert bench.attract.status().strays == ()

    asyncio.run(scenario())


# ---- another machine of the same appliance -------------------------------------------------------------------------


def test_what_another_machine_has_is_taken_over_once_its_cidr_is_asked_for_and_carried(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.cloud.entries = [
                entry(POD, "vtb-1", Owner.EARLIER, "i-2"),
                entry(SERVICE, "vtb-1", Owner.EARLIER, "i-2"),
            ]
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).code == "waiting-kernel")
            bench.forward.carry(POD)
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)
            await bench.settled()
            assert bench.cloud.did == [("ensure", POD)]
            assert bench.attract.status().strays == ()  # nor is the rest anybody's to remove here

    asyncio.run(scenario())


@pytest.mark.parametrize("owner", [Owner.EARLIER, Owner.FOREIGN])
def test_what_leads_to_another_machine_stays_when_its_cidr_goes(tmp_path: Path, owner: Owner) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            theirs = [entry(POD, "vtb-1", owner, "i-2")]
            bench.cloud.entries = list(theirs)
            bench.store.put(Intent(POD, "hk"))
            bench.store.leave(POD)
            await until(lambda: (found := bench.store.get(POD)) is not None and found.phase is Phase.WITHDRAWN)
            assert bench.cloud.entries == theirs
            assert bench.cloud.did == []

    asyncio.run(scenario())


@pytest.mark.parametrize("withhold", [Withhold.NEW, Withhold.ANY])
def test_nothing_is_taken_over_while_the_link_is_down_and_no_entry_is_wanted_then(
    tmp_path: Path, withhold: Withhold
) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.attract._withhold = lambda _intent: withhold
            bench.cloud.entries = [entry(POD, "vtb-1", Owner.EARLIER, "i-2")]
            bench.forward.carry(POD)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).code == "withheld")
            await bench.settled()
            assert bench.cloud.did == []

    asyncio.run(scenario())


# ---- tables that are not programmed any more -----------------------------------------------------------------------


def test_a_cidr_is_gone_only_when_no_table_in_use_sends_it_here(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.forward.carry(POD)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).state is LayerState.OK)
            bench.cloud.vpc = replace(VPC, tables=("vtb-1",))
            bench.cloud.elsewhere = [each for each in bench.cloud.entries if each.table == "vtb-2"]
            bench.cloud.entries = [each for each in bench.cloud.entries if each.table == "vtb-1"]
            await until(lambda: bench.attract.status().left == (("vtb-2", POD),))
            await bench.settled()
            assert bench.cloud.did == [("ensure", POD)]  # as long as the CIDR is wanted it is only shown
            assert bench.attract.layer(POD).state is LayerState.OK
            bench.cloud.entries = []  # and somebody removed the one that we do program
            bench.cloud.lands = False
            bench.store.leave(POD)
            await until(lambda: bench.cloud.did.count(("withdraw", POD)) > 2)
            assert bench.store.all()[0].phase is Phase.LEAVING
            bench.cloud.lands = True
            await until(lambda: bench.store.all()[0].phase is Phase.WITHDRAWN)
            assert bench.cloud.elsewhere == []

    asyncio.run(scenario())


def test_what_is_left_elsewhere_for_nobody_is_a_stray_like_any_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.cloud.elsewhere = [entry(POD, "vtb-9")]
            await until(lambda: bench.attract.status().strays == (POD,))
            assert bench.attract.status().left == ()
            bench.store.release(POD)
            await until(lambda: bench.attract.status().strays == ())
            assert bench.cloud.elsewhere == []

    asyncio.run(scenario())


def test_while_a_link_is_down_an_entry_elsewhere_is_withdrawn_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as bench:
            bench.attract._withhold = lambda _intent: Withhold.ANY
            bench.cloud.elsewhere = [entry(POD, "vtb-9")]
            bench.forward.carry(POD)
            bench.store.put(Intent(POD, "hk"))
            await until(lambda: bench.attract.layer(POD).code == "withheld")
            assert bench.cloud.did == [("withdraw", POD)]
            assert bench.cloud.elsewhere == []

    asyncio.run(scenario())
