"""The `Provider` for Aliyun's route tables.

Which tables these are is `cloud.choice`'s to say; it is asked anew with each `observe`. A table that leaves the choice
keeps our entries, and goes on sending packets here by them: so what vSwitches use is read, too, and what is to go goes
from there as well. How a call travels is not known here: `call` does that (cloud/aliyun.py).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from cloud import answers, doctor
from cloud.answers import Mark, Place
from cloud.choice import Choice
from cloud.metadata import Identity
from cloud.policy import ram_policy
from cloud.provider import (
    CloudError,
    Denied,
    Finding,
    Network,
    Observation,
    Owner,
    Quota,
    Refusals,
    Rejected,
    RouteEntry,
    Unavailable,
    Vpc,
)
from cloud.reading import Call, Patience, Reader
from cloud.retry import Pace
from cloud.steps import Goal, to_adopt, to_have, to_lack
from cloud.walk import Walk
from cloud.writing import Writer

__all__ = ["AliyunProvider", "Call"]


class AliyunProvider:
    """One VPC's route tables, as many of them as `choice` says.

    `skew` returns by how many seconds our clock is ahead of the cloud's, None where that cannot be known.
    """

    def __init__(
        self,
        call: Call,
        identity: Identity,
        mark: Mark,
        *,
        choice: Choice = Choice(),  # noqa: B008 - frozen
        pace: Pace = Pace(),  # noqa: B008 - frozen
        quota: Quota = Quota(),  # noqa: B008 - frozen
        chance: Callable[[], float] = random.random,
        skew: doctor.Skew | None = None,
    ) -> None:
        self.identity = identity
        self.mark = Mark(mark.appliance, mark.epoch, identity.instance_id)
        self.quota = quota
        self._call = call
        self._choice = choice
        self._chosen: tuple[str, ...] = ()
        self._others: tuple[str, ...] = ()  # in use, and not chosen
        self._left: tuple[str, ...] | None = None  # those among them that hold something of ours; None: not looked yet
        self._patience = Patience(pace, chance)
        self._reader = Reader(call, identity.vpc_id, self.mark, self._patience)
        self._writer = Writer(call, identity.instance_id, self.mark)
        self._skew = skew
        self._writing = asyncio.Lock()

    async def observe(self) -> Observation:
        """Read the VPC, its vSwitches and every entry of every table that we program; of others what is ours."""
        described = await self._reader.vpc()
        places = await self._reader.places()
        tables = await self._choose(places)
        entries = [entry for table in tables for entry in await self._reader.entries(table)]
        vpc = Vpc(
            vpc_id=self.identity.vpc_id,
            region=self.identity.region,
            cidrs=answers.cidrs(described),
            vswitches=tuple((each.vswitch, each.cidr) for each in places),
            instance_id=self.identity.instance_id,
            private_ip=self.identity.private_ip,
            tables=tables,
            uses=tuple((each.vswitch, each.table) for each in places),
            kinds=tuple(dict.fromkeys((each.table, each.kind) for each in places if each.kind)),
        )
        elsewhere, unread = await self._look_elsewhere()
        return Observation(vpc, tuple(entries), self.quota, time.time(), elsewhere, unread)

    async def ensure(self, destinations: Collection[Network]) -> Refusals:
        """Make `destinations` point here in every table; an entry that is right already costs no write."""
        return await self._reach(to_have, destinations, await self._tables())

    async def withdraw(self, destinations: Collection[Network]) -> Refusals:
        """Remove our entries for `destinations` from every table, and from those that we program no more."""
        if self._left is None:
            await self.observe()
        return await self._reach(to_lack, destinations, (*await self._tables(), *(self._left or ())))

    async def adopt(self, destination: Network) -> None:
        """Put our mark and next hop on whatever custom entry each table has for `destination`."""
        async with self._writing:
            found = [
                entry for table in await self._tables() for entry in await self._reader.entries(table, destination)
            ]
        if not any(entry.owner not in {Owner.OURS, Owner.SYSTEM} for entry in found):
            raise Rejected(f"no table has an entry for {destination} that is not ours: there is nothing to adopt")
        refused = await self._reach(to_adopt, [destination], await self._tables())
        if destination in refused:
            raise refused[destination]

    async def examine(self, wanted: Collection[Network]) -> tuple[Finding, ...]:
        """Look at every prerequisite, by dry runs where it is a permission."""
        return await doctor.examine(self._call, self.identity, self.observe, wanted, self._skew)

    def policy(self) -> Mapping[str, object]:
        """Return the minimal RAM policy, for the tables that we know of."""
        tables = self._chosen or self._choice.named
        me, by_tag = self.identity, self._choice.tag is not None
        return ram_policy(me.region, me.account, tables, others=self._others, eni=me.eni, by_tag=by_tag)

    async def _reach(
        self, goal: Goal, destinations: Collection[Network], tables: Sequence[str]
    ) -> dict[Network, CloudError]:
        if not destinations:
            return {}
        async with self._writing:
            instance = self.identity.instance_id
            walk = Walk(self._reader, self._writer, goal, instance, quota=self.quota, patience=self._patience)
            return await walk.run(tables, list(dict.fromkeys(destinations)))

    async def _look_elsewhere(self) -> tuple[tuple[RouteEntry, ...], tuple[str, ...]]:
        """Return what is ours in the tables that we do not program, and those of them that may not be read."""
        found: list[RouteEntry] = []
        unread = []
        for table in self._others:
            try:
                entries = await self._reader.entries(table)
            except (Denied, Rejected):  # it need not be ours to read: the doctor says so
                unread.append(table)
            else:
                found += (entry for entry in entries if entry.owner is Owner.OURS)
        self._left = tuple(dict.fromkeys(entry.table for entry in found))
        return tuple(found), tuple(unread)

    async def _tables(self) -> tuple[str, ...]:
        """Return the tables that we program; asked once, and again with each `observe`."""
        return self._chosen or await self._choose(await self._reader.places())

    async def _choose(self, places: Sequence[Place]) -> tuple[str, ...]:
        tag = self._choice.tag
        chosen = self._choice.tables(places, () if tag is None else await self._reader.tagged(tag))
        if not chosen and tag is not None:
            raise Rejected(f"no route table of {self.identity.vpc_id} carries the tag {tag}: tag one, or name it")
        if not chosen:
            raise Unavailable(f"no vSwitch of {self.identity.vpc_id} names its route table")
        self._chosen = chosen
        self._others = tuple(sorted({each.table for each in places if each.table} - set(chosen)))
        return chosen
