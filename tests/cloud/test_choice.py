"""The tables that we program are those named and those tagged, else all that are used; hosts elsewhere are told of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from cloud.choice import Choice, Tag
from cloud.emulator.world import NextHop, Wanted
from cloud.emulator.worldfile import RouteTable, WorldFile
from cloud.provider import Denied, Finding, Network, Rejected, RouteEntry, State
from tests.cloud.world import POD_CIDR, SERVICE_CIDR, Running, running, world_file

TAG = Tag("nexthop", "yes")


def tagged_world() -> WorldFile:
    """Return a world in which one of the two used tables carries the tag, and so does one that nobody uses."""
    file = world_file(settle_ms=0)
    tables = tuple(
        replace(each, tags=("nexthop=yes", "env=prod")) if each.id in {"vtb-other", "vtb-unused"} else each
        for each in (*file.route_table, RouteTable("vtb-more", tags=("nexthop=no",)))
    )
    return replace(file, route_table=tables)


def in_world(test: Callable[[Running], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with running(tagged_world()) as here:
            await test(here)

    asyncio.run(main())


def test_without_a_word_every_table_in_use_is_programmed() -> None:
    async def test(here: Running) -> None:
        seen = await here.provider().observe()
        assert seen.vpc.tables == ("vtb-other", "vtb-system")
        assert seen.vpc.bypassed == ()

    in_world(test)


@pytest.mark.parametrize(
    ("choice", "tables"),
    [
        (Choice(tag=TAG), ("vtb-other", "vtb-unused")),
        (Choice(tag=Tag("nexthop")), ("vtb-other", "vtb-unused", "vtb-more")),
        (Choice(("vtb-system",)), ("vtb-system",)),
        (Choice(("vtb-system", "vtb-other"), TAG), ("vtb-system", "vtb-other", "vtb-unused")),
    ],
)
def test_the_tables_named_and_those_tagged_are_programmed(choice: Choice, tables: tuple[str, ...]) -> None:
    async def test(here: Running) -> None:
        cloud = here.provider(choice=choice)
        assert await cloud.ensure([POD_CIDR]) == {}  # before anybody has observed
        seen = await cloud.observe()
        assert set(seen.vpc.tables) == set(tables)
        assert {entry.table for entry in seen.to(POD_CIDR)} == set(tables)

    in_world(test)


def test_a_table_that_gets_the_tag_later_is_found_by_the_next_look() -> None:
    async def test(here: Running) -> None:
        cloud = here.provider(choice=Choice(tag=TAG))
        await cloud.observe()
        world = here.emulator.world
        world.tables = {**world.tables, "vtb-system": replace(world.tables["vtb-system"], tags=("nexthop=yes",))}
        assert set((await cloud.observe()).vpc.tables) == {"vtb-other", "vtb-unused", "vtb-system"}

    in_world(test)


def test_a_tag_that_no_table_carries_is_refused_with_what_to_do() -> None:
    async def test(here: Running) -> None:
        with pytest.raises(Rejected, match=r"carries the tag nexthop=never: tag one, or name it"):
            await here.provider(choice=Choice(tag=Tag("nexthop", "never"))).observe()

    in_world(test)


def test_vswitches_on_other_tables_are_warned_about() -> None:
    async def test(here: Running) -> None:
        found = await here.provider(choice=Choice(tag=TAG)).examine([POD_CIDR])
        (finding,) = [each for each in found if each.code == "vswitch-bypassed"]
        assert finding == Finding(
            "vswitch-bypassed",
            State.WARN,
            "hosts in vsw-hosts use vtb-system, which is not programmed: they reach none of the CIDRs",
            'add "vtb-system" to [cloud] route_tables, or give it the tag of [cloud] route_table_tag',
        )

    in_world(test)


def test_the_policy_allows_the_search_by_tag_only_where_it_is_used() -> None:
    async def test(here: Running) -> None:
        listing = "vpc:DescribeRouteTableList"
        assert listing in str(here.provider(choice=Choice(tag=TAG)).policy())
        assert listing not in str(here.provider().policy())

    in_world(test)


@pytest.mark.parametrize("text", ["", "=yes", "aliyun-x=1", "acs:x", "k" * 129, "k=" + "v" * 129])
def test_what_the_cloud_would_not_take_as_a_tag_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        Tag.parse(text)


# ---- a table that leaves the choice --------------------------------------------------------------------------------

OTHER_ONLY = Choice(("vtb-other",))


def test_a_table_that_left_the_choice_is_still_looked_at_and_its_entries_go_with_their_cidr() -> None:
    async def test(here: Running) -> None:
        await here.provider().ensure([POD_CIDR, SERVICE_CIDR])
        later = here.provider(choice=OTHER_ONLY)
        seen = await later.observe()
        assert {(entry.table, entry.destination) for entry in seen.elsewhere} == {
            ("vtb-system", POD_CIDR),
            ("vtb-system", SERVICE_CIDR),
        }
        assert {entry.table for entry in seen.entries} == {"vtb-other"}
        assert await later.withdraw([POD_CIDR]) == {}
        assert {entry.destination for entry in (await later.observe()).elsewhere} == {SERVICE_CIDR}
        fresh = here.provider(choice=OTHER_ONLY)  # one that has not looked yet
        assert await fresh.withdraw([SERVICE_CIDR]) == {}
        assert (await fresh.observe()).elsewhere == ()

    in_world(test)


def test_elsewhere_only_what_is_ours_counts_and_nothing_is_written_for_what_is_wanted() -> None:
    async def test(here: Running) -> None:
        here.emulator.world.create(Wanted("vtb-system", "10.9.0.0/16", NextHop("Instance", "i-host")), 0.0)
        await here.provider(appliance="somebody-else").ensure([SERVICE_CIDR])
        chosen = here.provider(choice=OTHER_ONLY)
        assert set(await chosen.ensure([POD_CIDR, SERVICE_CIDR])) == {SERVICE_CIDR}
        seen = await chosen.observe()
        assert (seen.elsewhere, seen.unread) == ((), ())
        assert await chosen.withdraw([POD_CIDR, SERVICE_CIDR]) == {}
        left = {entry.destination for entry in here.emulator.world.entries("vtb-system", 1e12) if entry.custom}
        assert left == {IPv4Network("10.9.0.0/16"), SERVICE_CIDR}

    in_world(test)


def test_a_table_that_we_may_not_read_is_named_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(here: Running) -> None:
        chosen = here.provider(choice=OTHER_ONLY)
        read = chosen._reader.entries

        async def entries(table: str, destination: Network | None = None) -> list[RouteEntry]:
            if table == "vtb-system":
                raise Denied("no", code="Forbidden.RAM")
            return await read(table, destination)

        monkeypatch.setattr(chosen._reader, "entries", entries)
        assert await chosen.ensure([POD_CIDR]) == {}
        assert (await chosen.observe()).unread == ("vtb-system",)
        found = {each.code: each for each in await chosen.examine([POD_CIDR])}
        assert found["table-unread"].state is State.WARN
        assert "ram-policy" in found["table-unread"].fix
        assert await chosen.withdraw([POD_CIDR]) == {}

    in_world(test)


def test_the_doctor_names_what_was_left_behind_and_the_policy_allows_its_removal() -> None:
    async def test(here: Running) -> None:
        await here.provider().ensure([POD_CIDR])
        chosen = here.provider(choice=OTHER_ONLY)
        found = {each.code: each for each in await chosen.examine([POD_CIDR])}
        assert found["left-behind"].state is State.WARN
        assert all(word in found["left-behind"].text for word in ("vtb-system", str(POD_CIDR)))
        statements: Any = chosen.policy()["Statement"]
        assert [each["Resource"] for each in statements if "vpc:CreateRouteEntry" in each["Action"]] == [
            ["acs:vpc:cn-shenzhen:1234567890123456:routetable/vtb-other"]
        ]
        assert [each["Action"] for each in statements if "vtb-system" in str(each["Resource"])] == [
            ["vpc:DescribeRouteEntryList", "vpc:DeleteRouteEntry", "vpc:DeleteRouteEntries"]
        ]

    in_world(test)
