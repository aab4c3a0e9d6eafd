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

ONE = IPv4Network("10.244.0.0/16")
TWO = IPv4Network("10.96.0.0/16")


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
                await cloud.provider.ensure(ONE)
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
                await cloud.provider.ensure(ONE)
                before = cloud.writes()
                await cloud.provider.ensure(ONE)
                assert cloud.writes() == before

        asyncio.run(main())

    def test_a_withdrawn_cidr_is_gone_from_every_table_and_others_stay(self) -> None:
        async def main() -> None:
            async with self.cloud() as cloud:
                await cloud.provider.ensure(ONE)
                await cloud.provider.ensure(TWO)
                await cloud.provider.withdraw(ONE)
                seen = await cloud.provider.observe()
                assert seen.to(ONE) == ()
                assert len(seen.to(TWO)) == len(seen.vpc.tables)

        asyncio.run(main())

    def test_withdrawing_what_is_not_there_is_no_error_and_sends_no_write(self) -> None:
        async def main() -> None:
            async with self.cloud() as cloud:
                await cloud.provider.withdraw(ONE)
                assert cloud.writes() == 0

        asyncio.run(main())

    def test_somebody_elses_entry_is_shown_and_never_touched(self) -> None:
        async def main() -> None:
            async with self.cloud() as cloud:
                await cloud.stranger(ONE)
                before = [entry for entry in (await cloud.provider.observe()).entries if entry.owner is Owner.FOREIGN]
                assert len(before) == 1
                with pytest.raises(Duplicate):
                    await cloud.provider.ensure(ONE)
                await cloud.provider.withdraw(ONE)
                after = [entry for entry in (await cloud.provider.observe()).entries if entry.owner is Owner.FOREIGN]
                assert after == before

        asyncio.run(main())

    def test_what_the_cloud_never_takes_is_rejected(self) -> None:
        async def main() -> None:
            async with self.cloud() as cloud:
                vswitch = (await cloud.provider.observe()).vpc.vswitches[0][1]
                with pytest.raises(Rejected):
                    await cloud.provider.ensure(vswitch)

        asyncio.run(main())

    def test_many_at_once_all_arrive(self) -> None:
        async def main() -> None:
            wanted = [IPv4Network(f"10.{n}.0.0/16") for n in range(4)]
            async with self.cloud() as cloud:
                await asyncio.gather(*(cloud.provider.ensure(cidr) for cidr in wanted))
                seen = await cloud.provider.observe()
                assert all(len(seen.to(cidr)) == len(seen.vpc.tables) for cidr in wanted)

        asyncio.run(main())
