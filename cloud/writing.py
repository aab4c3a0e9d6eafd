"""Spells the writes: one step for one or for many entries of one table, as the API wants it.

One entry by the single calls, of which CreateRouteEntry alone is idempotent (ClientToken); many by the batch calls,
which answer for each entry. An entry is changed and deleted by its own id, so that it can never be one that somebody
has put in its place meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cloud import answers
from cloud.answers import Body, Mark
from cloud.errors import classify
from cloud.provider import CloudError, Network, RouteEntry
from cloud.reading import Call
from cloud.steps import Step

AT_ONCE: Final = 50  # the most that a batch call takes
Failed = Mapping[Network, CloudError]


class Writer:
    """Sends one write."""

    def __init__(self, call: Call, instance: str, mark: Mark) -> None:
        self._call = call
        self._instance = instance
        self._mark = mark

    async def create(self, table: str, destination: Network, token: str) -> None:
        """Create one entry; the same `token` again is the same entry."""
        wanted = {
            "RouteTableId": table,
            "DestinationCidrBlock": str(destination),
            "NextHopType": "Instance",
            "NextHopId": self._instance,
            "RouteEntryName": self._mark.name,
            "Description": self._mark.description,
            "ClientToken": token,
        }
        await self._call("CreateRouteEntry", wanted)

    async def modify(self, entry: RouteEntry) -> None:
        """Point an entry here and put our mark on it."""
        change = {
            "RouteEntryId": entry.entry_id,
            "RouteEntryName": self._mark.name,
            "Description": self._mark.description,
        }
        if entry.next_hop != self._instance:  # the same one again would be an error
            change |= {"NewNextHopType": "Instance", "NewNextHopId": self._instance}
        await self._call("ModifyRouteEntry", change)

    async def delete(self, entry: RouteEntry) -> None:
        """Delete one entry."""
        await self._call("DeleteRouteEntry", {"RouteEntryId": entry.entry_id})

    async def create_many(self, table: str, destinations: Sequence[Network]) -> Failed:
        """Create up to `AT_ONCE` entries; return those that failed."""
        items = [
            {
                "RouteTableId": table,
                "DstCidrBlock": str(destination),
                "NextHop": self._instance,
                "NextHopType": "Instance",
                "Name": self._mark.name,
                "Description": self._mark.description,
            }
            for destination in destinations
        ]
        told = await self._call("CreateRouteEntries", {"RouteEntries": items})
        return _failed(Step.CREATE, told, {})

    async def delete_many(self, entries: Sequence[RouteEntry]) -> Failed:
        """Delete up to `AT_ONCE` entries of one table; return those that failed."""
        items = [{"RouteTableId": entry.table, "RouteEntryId": entry.entry_id} for entry in entries]
        told = await self._call("DeleteRouteEntries", {"RouteEntries": items})
        return _failed(Step.DELETE, told, {entry.entry_id: entry.destination for entry in entries})


def _failed(step: Step, told: Body, by_id: Mapping[str, Network]) -> Failed:
    failed: dict[Network, CloudError] = {}
    for item in told.get("FailedRouteEntries") or []:
        code, text = str(item.get("FailedCode") or ""), str(item.get("FailedMessage") or "")
        destination = by_id.get(str(item.get("RouteEntryId") or "")) or answers.network(item.get("DstCidrBlock"))
        if destination is not None:
            message = f"{step.value} of {destination} in a batch: {code}: {text}"
            failed[destination] = classify(code)(message, code=code, request_id=str(told.get("RequestId") or ""))
    return failed
