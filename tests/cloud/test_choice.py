"""The tables that we program are those named and those tagged, else all that are used; hosts elsewhere are told of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from cloud.choice import Choice, Tag
from cloud.emulator.worldfile import RouteTable, WorldFile
from cloud.provider import Finding, Rejected, State
from tests.cloud.world import POD_CIDR, Running, running, world_file

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
