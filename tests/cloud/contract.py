"""What any `Provider` has to do, whichever cloud it is for: a suite to inherit from.

A subclass gives `cloud()`: an asynchronous context that yields a provider for a VPC whose tables hold nothing of ours,
and a stranger, which can put an entry of somebody else's into the first table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from ipaddress import IPv4Network

import pytest

from cloud.provider import Duplicate, EntryStatus, Network, Owner, Provider, Rejected

ONE = IPv4Network("192.0.2.128/26")  # RFC 5737: nobody routes these, so the suite may run in a real VPC
TWO = IPv4Network("192.0.2.192/26")


@dataclass(frozen=True, slots=True)
class Cloud:
    """A provider, a stranger, and how many writes the cloud has got so far."""

    provider: Provider
    stranger: Callable[[Network], Awaitable[None]]
    writes: Callable[[], int]


class ProviderContract:
    def cloud(self) -> AbstractAsyncContextManager[Cloud]:
        raise NotImplementedError

    def test_it_sees_the_vpc_and_the_clouds_own_entries(self) -> None:
        async def main() -> None:
            async with self.cloud() as cloud:
                seen = await cloud.provider.observe()
                assert seen.vpc.instance_id
                assert seen.vpc.cidrs
                assert seen.vpc.tables
                own = {entry.destination for entry in seen.entries if entry.owner is Owner.SYSTEM}
                assert {cidr for _, cidr in seen.vpc.vswitches} <= own

        asyncio.run(main())

    def test_an_ensured_cidr_is_available_and_ours_in_every_table(self) -> None:
        async def main() -> None:
            async with self.cloud() as cloud:
                await cloud.provider.ensure([ONE])
                seen = await cloud.provider.observe()
                assert {entry.table for entry in seen.to(ONE)} == set(seen.vpc.tables)
                for entry in seen.to(ONE):
                    assert entry.owner is Owner.OURS
                    assert entry.status is EntryStatus.AVAILABLE
                    assert entry.next_hop == seen.vpc.instance_id

        asyncio.run(main())

    def test_ensuring_twice_sends_no_second_write(self) -> None:
        async def main() -> None:
            async with self.cloud() as cloud:
                await cloud.provider.ensure([ONE])
                before = cloud.writes()
                await cloud.provider.ensure([ONE])
                assert cloud.writes() == before

        asyncio.run(main())

    def test_a_withdrawn_cidr_is_gone_from_every_table_and_others_stay(self) -> None:
        async def main() -> None:
            async with self.cloud() as cloud:
                await cloud.provider.ensure([ONE])
                await cloud.provider.ensure([TWO])
                await cloud.provider.withdraw([ONE])
                seen = await cloud.provider.observe()
                assert seen.to(ONE) == ()
                assert len(seen.to(TWO)) == len(seen.vpc.tables)

        asyncio.run(main())

    def test_withdrawing_what_is_not_there_is_no_error_and_sends_no_write(self) -> None:
        async def main() -> None:
            async with self.cloud() as cloud:
                await cloud.provider.withdraw([ONE])
                assert cloud.writes() == 0

        asyncio.run(main())

    def test_somebody_elses_entry_is_shown_and_never_touched(self) -> None:
        async def main() -> None:
            async with self.cloud() as cloud:
                await cloud.stranger(ONE)
                before = [entry for entry in (await cloud.provider.observe()).entries if entry.owner is Owner.FOREIGN]
                assert len(before) == 1
                refused = await cloud.provider.ensure([ONE, TWO])
                assert set(refused) == {ONE}
                assert isinstance(refused[ONE], Duplicate)
                await cloud.provider.withdraw([ONE])
                after = [entry for entry in (await cloud.provider.observe()).entries if entry.owner is Owner.FOREIGN]
                assert after == before

        asyncio.run(main())

    def test_what_the_cloud_never_takes_is_rejected(self) -> None:
        async def main() -> None:
            async with self.cloud() as cloud:
                vswitch = (await cloud.provider.observe()).vpc.vswitches[0][1]
                refused = await cloud.provider.ensure([vswitch, ONE])
                assert set(refused) == {vswitch}
                assert isinstance(refused[vswitch], Rejected)
                assert len((await cloud.provider.observe()).to(ONE)) > 0

        asyncio.run(main())

    def test_a_stranger_is_adopted_in_place_and_only_when_told(self) -> None:
        async def main() -> None:
            async with self.cloud() as cloud:
                await cloud.stranger(ONE)
                (theirs,) = (await cloud.provider.observe()).to(ONE)
                await cloud.provider.adopt(ONE)
                (adopted,) = (await cloud.provider.observe()).to(ONE)
                assert adopted.entry_id == theirs.entry_id
                assert adopted.owner is Owner.OURS
                assert cloud.writes() == 1
                with pytest.raises(Rejected):
                    await cloud.provider.adopt(TWO)

        asyncio.run(main())

    def test_many_are_done_in_few_writes_and_undone_in_few(self) -> None:
        async def main() -> None:
            wanted = [IPv4Network(f"192.0.2.{n * 4}/30") for n in range(20)]
            async with self.cloud() as cloud:
                assert await cloud.provider.ensure(wanted) == {}
                seen = await cloud.provider.observe()
                assert all(len(seen.to(cidr)) == len(seen.vpc.tables) for cidr in wanted)
                assert cloud.writes() == len(seen.vpc.tables)
                assert await cloud.provider.withdraw(wanted) == {}
                seen = await cloud.provider.observe()
                assert not any(seen.to(cidr) for cidr in wanted)
                assert cloud.writes() == 2 * len(seen.vpc.tables)

        asyncio.run(main())

    def test_many_at_once_all_arrive(self) -> None:
        async def main() -> None:
            wanted = [IPv4Network(f"192.0.2.{96 + n * 8}/29") for n in range(4)]
            async with self.cloud() as cloud:
                await asyncio.gather(*(cloud.provider.ensure([cidr]) for cidr in wanted))
                seen = await cloud.provider.observe()
                assert all(len(seen.to(cidr)) == len(seen.vpc.tables) for cidr in wanted)

        asyncio.run(main())
