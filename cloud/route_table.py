"""The `Provider` for Aliyun's route tables: look, take one step, look again, until the table is as it should be.

Rule: one write at a time, and none while another entry of ours settles (the cloud answers TaskConflict); after every
write, taken or failed or unanswered, the table is read before anything else is sent. How a call travels is not known
here: `call` does that (cloud/aliyun.py).
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from cloud import answers
from cloud.answers import Body, Mark, Place
from cloud.errors import RETRIABLE
from cloud.metadata import Identity
from cloud.provider import (
    CloudError,
    Duplicate,
    Network,
    Observation,
    QuotaExceeded,
    Rejected,
    RouteEntry,
    Unavailable,
    Vpc,
)
from cloud.retry import Pace
from cloud.steps import Step, to_have, to_lack

log = logging.getLogger(__name__)
T = TypeVar("T")

_PAGE: Final = 50  # the most that the list calls give
_ENTRIES: Final = 100  # the most that DescribeRouteEntryList gives


class Call(Protocol):
    """Sends one call and returns the answer's body; raises `CloudError`. It retries nothing."""

    async def __call__(self, action: str, params: Mapping[str, str]) -> Body:
        """Send it."""
        ...


class AliyunProvider:
    """One VPC's route tables: those named in `tables`, or, when that is empty, all that its vSwitches use."""

    def __init__(
        self,
        call: Call,
        identity: Identity,
        mark: Mark,
        *,
        tables: Sequence[str] = (),
        pace: Pace = Pace(),  # noqa: B008 - frozen
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.identity = identity
        self.mark = mark
        self._call = call
        self._named = tuple(tables)
        self._used: tuple[str, ...] = ()
        self._pace = pace
        self._chance = chance
        self._writing = asyncio.Lock()

    async def observe(self) -> Observation:
        """Read the VPC, its vSwitches and every entry of every table that we program."""
        told = await self._patiently("DescribeVpcs", {"VpcId": self.identity.vpc_id})
        vpcs = (told.get("Vpcs") or {}).get("Vpc") or []
        if not vpcs:
            raise Unavailable(f"the cloud does not list {self.identity.vpc_id} in {self.identity.region}")
        places = await self._places()
        tables = self._choose(places)
        entries = [entry for table in tables for entry in await self._entries(table)]
        vpc = Vpc(
            vpc_id=self.identity.vpc_id,
            region=self.identity.region,
            cidrs=answers.cidrs(vpcs[0]),
            vswitches=tuple((each.vswitch, each.cidr) for each in places),
            instance_id=self.identity.instance_id,
            private_ip=self.identity.private_ip,
            tables=tables,
        )
        return Observation(vpc, tuple(entries))

    async def ensure(self, destination: Network) -> None:
        """Make `destination` point here in every table; return when the cloud calls it Available.

        An entry that is right already costs no write. What stops one table (`Duplicate`, `QuotaExceeded`, `Rejected`)
        does not stop the others; the first such error is raised at the end.
        """
        stopped: list[CloudError] = []
        for table in await self._tables():
            try:
                await self._walk(table, destination, lambda found: to_have(found, self.identity.instance_id))
            except (Duplicate, QuotaExceeded, Rejected) as error:
                stopped.append(error)
        if stopped:
            raise stopped[0]

    async def withdraw(self, destination: Network) -> None:
        """Remove our entry for `destination` from every table; return when it is gone from all."""
        for table in await self._tables():
            await self._walk(table, destination, to_lack)

    async def _walk(self, table: str, destination: Network, next_step: Callable[[Sequence[RouteEntry]], Step]) -> None:
        """Take steps until `next_step` says DONE."""
        async with self._writing:
            token = str(uuid.uuid4())  # of the one entry that this walk may create, however often it has to ask
            loop = asyncio.get_running_loop()
            failures, looks, taken, deadline = 0, 0, None, None
            while True:
                found = await self._entries(table, destination)
                step = next_step(found)
                if step is Step.DONE:
                    return
                if step is Step.WAIT or step is taken:
                    deadline = deadline or loop.time() + self._pace.settle
                    if loop.time() > deadline:
                        raise Unavailable(f"{destination} in {table} has not settled in {self._pace.settle:g} s")
                    looks += 1
                    await asyncio.sleep(self._pace.look(looks))
                    continue
                try:
                    await self._take(step, table, destination, found, token)
                except (*RETRIABLE, Duplicate) as error:
                    failures += 1
                    await self._pause(error, failures)
                else:
                    taken, looks, deadline = step, 0, None

    async def _take(
        self, step: Step, table: str, destination: Network, found: Sequence[RouteEntry], token: str
    ) -> None:
        log.info("route entry: %s", step.value, extra={"cidr": str(destination), "table": table})
        if step is Step.CREATE:
            wanted = {
                "RouteTableId": table,
                "DestinationCidrBlock": str(destination),
                "NextHopType": "Instance",
                "NextHopId": self.identity.instance_id,
                "RouteEntryName": self.mark.name,
                "Description": self.mark.description,
                "ClientToken": token,
            }
            await self._call("CreateRouteEntry", wanted)
        elif step is Step.MODIFY:
            change = {"NewNextHopType": "Instance", "NewNextHopId": self.identity.instance_id}
            await self._call("ModifyRouteEntry", {"RouteEntryId": found[0].entry_id} | change)
        else:
            # By its own id, so that it can never be an entry that somebody has put in its place meanwhile.
            await self._call("DeleteRouteEntry", {"RouteEntryId": found[0].entry_id})

    async def _tables(self) -> tuple[str, ...]:
        """Return the tables to program, as last observed."""
        return self._used or self._choose(await self._places())

    def _choose(self, places: Sequence[Place]) -> tuple[str, ...]:
        self._used = self._named or tuple(sorted({each.table for each in places if each.table}))
        if not self._used:
            raise Unavailable(f"no vSwitch of {self.identity.vpc_id} names its route table")
        return self._used

    async def _places(self) -> tuple[Place, ...]:
        items = self._pages("DescribeVSwitches", {"VpcId": self.identity.vpc_id}, "VSwitches", "VSwitch")
        found = [answers.place(item) async for item in items]
        return tuple(each for each in found if each is not None)

    async def _pages(self, action: str, params: Mapping[str, str], outer: str, inner: str) -> AsyncIterator[Body]:
        """Yield every item of a list call that numbers its pages."""
        number, seen = 1, 0
        while True:
            told = await self._patiently(action, {**params, "PageNumber": str(number), "PageSize": str(_PAGE)})
            items = (told.get(outer) or {}).get(inner) or []
            for item in items:
                yield item
            number, seen = number + 1, seen + len(items)
            if not items or seen >= int(told.get("TotalCount") or 0):
                return

    async def _entries(self, table: str, destination: Network | None = None) -> list[RouteEntry]:
        """Return all entries of a table, or those for exactly one destination."""
        params = {"RouteTableId": table, "MaxResult": str(_ENTRIES)}
        if destination is not None:
            params["DestinationCidrBlock"] = str(destination)
        found: list[RouteEntry] = []
        tokens: set[str] = set()
        while True:
            told = await self._patiently("DescribeRouteEntryList", params)
            items = (told.get("RouteEntrys") or {}).get("RouteEntry") or []
            read = (answers.entry(item, table, self.mark) for item in items)
            found += [each for each in read if each is not None and destination in {None, each.destination}]
            token = told.get("NextToken") or ""
            if not token:
                return found
            if token in tokens:
                raise Unavailable(f"the list of entries of {table} goes in a circle")
            tokens.add(token)
            params["NextToken"] = token

    async def _patiently(self, action: str, params: Mapping[str, str]) -> Body:
        """Send a call that only reads, again after errors that pass."""
        failures = 0
        while True:
            try:
                return await self._call(action, params)
            except RETRIABLE as error:
                failures += 1
                await self._pause(error, failures)

    async def _pause(self, error: CloudError, failures: int) -> None:
        """Wait before another try, or raise `error` when there have been enough."""
        if failures >= self._pace.tries:
            raise error
        delay = self._pace.wait(failures, self._chance())
        log.info("cloud call failed, again in %.1f s: %s", delay, error)
        await asyncio.sleep(delay)
