"""What nexthopd hears, it counts as so, shows and writes down; with nobody there nothing counts as carried."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from appliance.forwardserver import ForwardServer
from appliance.forwardtalk import Hello, State, Wake, encode
from appliance.meddling import OFTEN
from appliance.model import Bar, Intent, Phase
from appliance.status import FirewallStatus, Layer, LayerState, Repeated
from tests.appliance.border import BOTH, OK, Border, border, withdrawn
from tests.appliance.fakes import POD, SERVICE, until
from tests.listening import listening


def test_everything_is_told_at_the_start_and_whenever_it_changes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            assert it.client.carrying == BOTH
            assert (it.client.layer(POD), it.client.layer(SERVICE).code) == (OK, "pending")
            assert it.client.problem() is None
            told: list[None] = []
            it.client.on_carrying(lambda: told.append(None))
            it.speaker.now = State(True, "locked", frozenset({POD}), {}, FirewallStatus("nft", "why"), {"route": 2})
            it.server.publish()
            await until(lambda: it.client.problem() == "locked")
            assert (it.client.carrying, it.client.firewall()) == (frozenset({POD}), FirewallStatus("nft", "why"))
            it.client.repaired("device", "tun-hk", 3)
            assert it.client.repairs() == {"route": 2, "device": 3}
            assert told == [None]

    asyncio.run(scenario())


def test_a_change_of_intents_wakes_the_other_side(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            woken = it.speaker.woken
            it.store.put(Intent(POD, "hk"))
            await until(lambda: it.speaker.woken > woken)

    asyncio.run(scenario())


def test_nothing_counts_as_carried_while_nobody_answers_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            await it.end("server")
            await until(lambda: not it.client.carrying)
            assert not it.client.ready()
            assert "nobody watches it" in str(it.client.problem())
            assert it.client.layer(POD) == OK  # in the kernel it is, as far as anybody knows
            it.server = ForwardServer(it.path)
            it.run("server")
            await until(lambda: it.client.carrying == BOTH)
            assert it.client.problem() is None

    asyncio.run(scenario())


def test_a_record_is_dropped_only_while_it_is_withdrawn(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            withdrawn(it.store, POD)
            it.store.put(Intent(SERVICE, "hk"))
            it.server.gone({intent.network: intent.revision for intent in it.store.all()})
            await until(lambda: it.store.get(POD) is None)
            found = it.store.get(SERVICE)
            assert found is not None
            assert found.phase is Phase.PRESENT

    asyncio.run(scenario())


def test_what_is_gone_of_an_earlier_life_is_heard_late_and_drops_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            withdrawn(it.store, POD)
            (seen,) = it.store.all()
            withdrawn(it.store, POD)  # asked for and given back once more, and its route is there again
            withdrawn(it.store, SERVICE)
            it.server.gone({POD: seen.revision})
            it.server.gone({intent.network: intent.revision for intent in it.store.all() if intent.network == SERVICE})
            await until(lambda: it.store.get(SERVICE) is None)
            assert [intent.network for intent in it.store.all()] == [POD]

    asyncio.run(scenario())


def test_a_repair_is_written_down_also_one_from_a_time_without_nexthopd(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path, started=False) as it:
            it.server.repaired("route", "10.244.0.0/16")
            it.run("server")
            it.run("client")
            await until(it.client.ready)
            it.server.repaired("firewall", "rules were gone")
            await until(lambda: len(it.store.history()) == 2)
            told = [(event.who, event.what, event.detail) for event in it.store.history()]
            assert told == [
                ("forward", "repaired firewall", "rules were gone"),
                ("forward", "repaired route", "10.244.0.0/16"),
            ]

    asyncio.run(scenario())


def test_the_rules_are_shown_by_who_may_see_them_to_everybody_who_asks(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            for _ in range(2):
                both = await asyncio.gather(it.client.rules(), it.client.rules())
                assert [each["nftables"] for each in both] == ["table inet nexthop"] * 2
            await it.end("server")
            await until(lambda: not it.client.ready())
            assert "does not answer" in (await it.client.rules())["firewall"]

    asyncio.run(scenario())


def test_what_is_repaired_again_and_again_is_told_as_somebodys_doing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            for _ in range(OFTEN):
                assert it.client.meddling() == ()
                it.server.repaired("sysctl", "net/ipv4/ip_forward")
            await until(it.client.meddling)
            assert it.client.meddling() == (Repeated("sysctl", "net/ipv4/ip_forward", OFTEN),)

    asyncio.run(scenario())


@contextlib.asynccontextmanager
async def played(directory: Path, said: bytes) -> AsyncIterator[Border]:
    """Have the client talk to a program that says this."""

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    async with border(directory, started=False) as it:
        it.path.parent.mkdir()
        async with listening(say, it.path):
            it.run("client")
            yield it


def test_another_release_of_nexthop_forward_is_told_as_such(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with played(tmp_path, encode(Hello(99))) as it:
            await until(lambda: "restart both" in str(it.client.problem()))
            assert not it.client.carrying

    asyncio.run(scenario())


def test_a_word_that_is_for_the_other_side_alone_ends_the_conversation(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with played(tmp_path, encode(Hello()) + encode(Wake())) as it:
            await until(lambda: "nobody understands" in str(it.client.problem()))

    asyncio.run(scenario())


def test_what_is_barred_may_go_from_the_kernel_and_is_shown_with_the_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with border(tmp_path) as it:
            it.store.put(Intent(POD, "hk"))
            it.store.put(Intent(SERVICE, "hk"))
            assert await it.server.removing(frozenset(), BOTH) == BOTH
            woken = it.speaker.woken
            it.store.bar({POD: Bar("overlaps-vswitch", "a vSwitch is there")})
            await until(lambda: it.speaker.woken > woken)
            assert await it.server.removing(frozenset(), BOTH) == frozenset({SERVICE})
            assert it.client.layer(POD) == Layer(LayerState.ERROR, "a vSwitch is there", "overlaps-vswitch")
            it.store.bar({})
            assert it.client.layer(POD) == OK

    asyncio.run(scenario())
