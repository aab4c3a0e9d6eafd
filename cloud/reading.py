"""Reads the VPC and its route tables whole, page by page, patiently, and never takes a part for the whole.

A list whose pages do not add up to its own count is no answer: an entry that is missed would be taken for one that is
gone. It is read again, and in the end it is `Unavailable`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

from cloud import answers
from cloud.answers import Body, Mark, Place
from cloud.choice import Tag
from cloud.errors import RETRIABLE
from cloud.provider import CloudError, Network, RouteEntry, Unavailable
from cloud.retry import Pace

log = logging.getLogger(__name__)
T = TypeVar("T")

_PAGE: Final = 50  # the most that the list calls give
_ENTRIES: Final = 100  # the most that DescribeRouteEntryList gives


class Call(Protocol):
    """Sends one call and returns the answer's body; raises `CloudError`. It retries nothing."""

    async def __call__(self, action: str, params: Mapping[str, Any]) -> Body:
        """Send it; a parameter is a text or a list of mappings."""
        ...


class Patience:
    """How long to go on where something fails that passes."""

    def __init__(self, pace: Pace, chance: Callable[[], float]) -> None:
        self.pace = pace
        self._chance = chance

    async def pause(self, error: CloudError, failures: int) -> None:
        """Wait before another try, or raise `error` when there have been enough."""
        if failures >= self.pace.tries:
            raise error
        delay = self.pace.wait(failures, self._chance())
        log.info("cloud call failed, again in %.1f s: %s", delay, error)
        await asyncio.sleep(delay)


class Reader:
    """What reads one VPC."""

    def __init__(self, call: Call, vpc_id: str, mark: Mark, patience: Patience) -> None:
        self._call = call
        self._vpc_id = vpc_id
        self._mark = mark
        self._patience = patience

    async def vpc(self) -> Body:
        """Return the VPC as DescribeVpcs shows it."""
        items = await self._pages("DescribeVpcs", {"VpcId": self._vpc_id}, "Vpcs", "Vpc")
        if not items:
            raise Unavailable(f"the cloud does not list {self._vpc_id}")
        return items[0]

    async def places(self) -> tuple[Place, ...]:
        """Return the VPC's vSwitches and the tables that they use."""
        items = await self._pages("DescribeVSwitches", {"VpcId": self._vpc_id}, "VSwitches", "VSwitch")
        found = (answers.place(item) for item in items)
        return tuple(each for each in found if each is not None)

    async def tagged(self, tag: Tag) -> tuple[str, ...]:
        """Return the VPC's route tables that carry `tag`."""
        asked = {"VpcId": self._vpc_id, "Tags": [tag.asked()]}
        items = await self._pages("DescribeRouteTableList", asked, "RouterTableList", "RouterTableListType")
        return tuple(str(item["RouteTableId"]) for item in items)

    async def entries(self, table: str, destination: Network | None = None) -> list[RouteEntry]:
        """Return all entries of a table, or those for exactly one destination."""
        params = {"RouteTableId": table, "MaxResult": str(_ENTRIES)}
        if destination is not None:
            params["DestinationCidrBlock"] = str(destination)

        async def once() -> list[Body]:
            return await self._entries_once(params)

        items = await self._again(once)
        read = (answers.entry(item, table, self._mark) for item in items)
        return [each for each in read if each is not None and destination in {None, each.destination}]

    async def _entries_once(self, params: Mapping[str, str]) -> list[Body]:
        found: list[Body] = []
        token = ""
        tokens: set[str] = set()
        while True:
            told = await self._call("DescribeRouteEntryList", {**params, "NextToken": token} if token else params)
            found += (told.get("RouteEntrys") or {}).get("RouteEntry") or []
            token = told.get("NextToken") or ""
            if not token:
                _complete(found, told, f"entries of {params['RouteTableId']}")
                return found
            if token in tokens:
                raise Unavailable(f"the list of entries of {params['RouteTableId']} goes in a circle")
            tokens.add(token)

    async def _pages(self, action: str, params: Mapping[str, Any], outer: str, inner: str) -> list[Body]:
        """Return every item of a list call that numbers its pages."""

        async def once() -> list[Body]:
            found: list[Body] = []
            number = 1
            while True:
                told = await self._call(action, {**params, "PageNumber": str(number), "PageSize": str(_PAGE)})
                items = (told.get(outer) or {}).get(inner) or []
                found += items
                number += 1
                if not items or len(found) >= int(told.get("TotalCount") or 0):
                    _complete(found, told, inner)
                    return found

        return await self._again(once)

    async def _again(self, once: Callable[[], Awaitable[T]]) -> T:
        """Do what only reads, again after errors that pass."""
        failures = 0
        while True:
            try:
                return await once()
            except RETRIABLE as error:
                failures += 1
                await self._patience.pause(error, failures)


def _complete(found: list[Body], told: Body, what: str) -> None:
    """Raise `Unavailable` where the last page's own count is more than came. Without a count nothing can be said."""
    count = int(told.get("TotalCount") or 0)
    if len(found) < count:
        raise Unavailable(f"the list of {what} is short: {len(found)} of {count}")
