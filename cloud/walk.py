"""From what the tables hold to what they should: look, take one step, look again, for many CIDRs at once.

Rule: one write at a time, and none while an entry of ours settles (the cloud answers TaskConflict); after every write,
taken or failed or unanswered, what it was about is read before anything else is sent. New entries come first, then
changes, then deletions.

What stops one CIDR in one table stops no other. A write that goes on failing while reading works is given up, and those
that follow get one try each until one is taken; an entry that does not settle is given up likewise; and what is denied
in one table is not asked of it again. But where no write is taken any more, or every table denies, or we are too fast,
or reading fails, it is the cloud as a whole: the walk ends, with an error that tells what it had given up.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from cloud.errors import RETRIABLE, is_not_offered
from cloud.provider import (
    CloudError,
    Conflict,
    Denied,
    Duplicate,
    Network,
    Quota,
    QuotaExceeded,
    Rejected,
    RouteEntry,
    Unavailable,
)
from cloud.quota import advice, fill
from cloud.reading import Patience, Reader
from cloud.steps import Goal, Step, to_replace
from cloud.writing import AT_ONCE, Failed, Writer

log = logging.getLogger(__name__)

Spot = tuple[str, Network]  # a table, and a destination in it

# Up to so many go one by one: a single create is idempotent by its token, which is worth more than a call saved.
_FEW: Final = 4


class Walk:
    """One walk; made for it and thrown away."""

    def __init__(
        self, reader: Reader, writer: Writer, goal: Goal, instance: str, *, quota: Quota, patience: Patience
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._goal = goal
        self._instance = instance
        self._quota = quota
        self._patience = patience
        self._found: dict[Spot, list[RouteEntry]] = {}
        self._free: dict[str, int] = {}
        self._open: dict[Spot, None] = {}
        self._refused: dict[Spot, CloudError] = {}
        self._taken: dict[Spot, Step] = {}
        self._tokens: dict[Spot, str] = {}
        self._replacing: set[Spot] = set()
        self._singly: set[Spot] = set()
        self._denied: dict[tuple[Step, str], Denied] = {}
        self._took = False
        self._failures = 0  # in a row, whatever they were about
        self._looks = 0
        self._deadline: float | None = None

    async def run(self, tables: Sequence[str], destinations: Collection[Network]) -> dict[Network, CloudError]:
        """Walk to the end; return what stopped single destinations, the first reason of each. Raises `CloudError`."""
        try:
            await self._walk(tables, destinations)
            if not self._took and {table for _, table in self._denied} == set(tables):
                raise next(iter(self._denied.values()))
        except CloudError as error:
            found = self._by_destination().items()
            error.refused = {destination: each for destination, each in found if not isinstance(each, Denied)}
            raise
        return self._by_destination()

    async def _walk(self, tables: Sequence[str], destinations: Collection[Network]) -> None:
        self._open = {(table, destination): None for table in tables for destination in destinations}
        for table in tables:
            await self._read_whole(table)
        while True:
            todo = self._decide()
            if settling := todo.get(Step.WAIT):
                await self._wait(settling)
                continue
            step = next((each for each in (Step.CREATE, Step.MODIFY, Step.DELETE) if todo.get(each)), None)
            if step is None:
                break
            if step is Step.CREATE and not self._room(todo[step]):
                continue
            await self._advance(step, self._chunk(step, todo[step]))

    def _by_destination(self) -> dict[Network, CloudError]:
        refused: dict[Network, CloudError] = {}
        for (_, destination), error in self._refused.items():
            refused.setdefault(destination, error)
        return refused

    # ---- deciding -------------------------------------------------------------------------------------------------

    def _decide(self) -> dict[Step, list[Spot]]:
        """Return what is to be done; what has been asked for and is not to be seen yet is waited for."""
        todo: dict[Step, list[Spot]] = {}
        for spot in list(self._open):
            goal = to_replace if spot in self._replacing else self._goal
            try:
                step = goal(self._found.get(spot, []), self._instance)
            except (Duplicate, Rejected) as error:
                self._refuse(spot, error)
                continue
            if denied := self._denied.get((step, spot[0])):
                self._refuse(spot, denied)
            elif step is not Step.DONE:
                todo.setdefault(Step.WAIT if step is self._taken.get(spot) else step, []).append(spot)
        return todo

    def _room(self, spots: Iterable[Spot]) -> bool:
        """Refuse what a table has no room for; return whether all have."""
        fits = True
        free = dict(self._free)
        shorter = advice({destination for _, destination in self._open})
        for spot in spots:
            table, destination = spot
            free[table] -= 1
            if free[table] < 0 and spot not in self._replacing:
                fits = False
                text = (
                    f"{table} has no room for {destination}: it takes {self._quota.limit} custom entries, and "
                    f"{self._quota.reserve} stay free for others who use it"
                )
                self._refuse(spot, QuotaExceeded(text + (f" ({shorter})" if shorter else ""), code="OurQuota"))
        return fits

    def _chunk(self, step: Step, spots: Sequence[Spot]) -> Sequence[Spot]:
        """Return what the next call is about: entries of one table."""
        table = spots[0][0]
        together = [spot for spot in spots if spot[0] == table and spot not in self._singly]
        if step is Step.MODIFY or len(together) <= _FEW:
            return spots[:1]
        return together[:AT_ONCE]

    def _refuse(self, spot: Spot, error: CloudError) -> None:
        self._refused[spot] = error
        del self._open[spot]

    # ---- acting ---------------------------------------------------------------------------------------------------

    async def _advance(self, step: Step, spots: Sequence[Spot]) -> None:
        """Send one write, and look at what became of it."""
        log.info("route entries: %s", step.value, extra={"count": len(spots), "table": spots[0][0]})
        try:
            failed = await self._send(step, spots)
        except (*RETRIABLE, Duplicate) as error:
            await self._failed(spots, error)
        except (QuotaExceeded, Rejected) as error:
            self._turned_down(step, spots, error)
        except Denied as error:
            self._denied[step, spots[0][0]] = error
        else:
            await self._sort_out(step, spots, failed)
        await self._look(spots)

    async def _send(self, step: Step, spots: Sequence[Spot]) -> Failed:
        table, destination = spots[0]
        if step is Step.CREATE:
            if len(spots) > 1:
                return await self._writer.create_many(table, [spot[1] for spot in spots])
            await self._writer.create(table, destination, self._tokens.setdefault(spots[0], str(uuid.uuid4())))
        elif step is Step.MODIFY:
            await self._writer.modify(self._found[spots[0]][0])
        elif len(spots) > 1:
            return await self._writer.delete_many([self._found[spot][0] for spot in spots])
        else:
            await self._writer.delete(self._found[spots[0]][0])
        return {}

    async def _failed(self, spots: Sequence[Spot], error: CloudError) -> None:
        """Wait before another try; after enough of them give up what this was about, or the walk."""
        self._failures += 1
        try:
            await self._patience.pause(error, self._failures)
        except (Conflict, Duplicate, Unavailable):
            if self._failures >= 2 * self._patience.pace.tries:
                raise
            for spot in spots:
                if spot in self._singly or len(spots) == 1:
                    self._refuse(spot, error)
                self._singly.add(spot)  # of those that failed together one may be the reason
            if isinstance(error, Duplicate):  # the cloud knows an entry that it does not show: it works
                self._failures = 0

    def _turned_down(self, step: Step, spots: Sequence[Spot], error: CloudError) -> None:
        """Find another way, or give this one up."""
        if len(spots) > 1:
            self._singly.update(spots)  # the batch call as such: its rules are stricter, or the region has none
        elif step is Step.MODIFY and is_not_offered(error):
            log.warning("an entry cannot be changed in place, so it is deleted and made again: %s", error)
            self._replacing.add(spots[0])
            self._singly.add(spots[0])  # so that no more than one is missing at a time
        else:
            self._refuse(spots[0], error)

    async def _sort_out(self, step: Step, spots: Sequence[Spot], failed: Failed) -> None:
        """Take note of what was taken, and of each entry of a batch that was not."""
        passing: list[tuple[Spot, CloudError]] = []
        for spot in spots:
            error = failed.get(spot[1])
            if error is None:
                self._took = True
                self._failures, self._looks, self._deadline = 0, 0, None
                self._taken[spot] = step
                self._free[spot[0]] -= {Step.CREATE: 1, Step.DELETE: -1}.get(step, 0)
            elif isinstance(error, Denied):
                self._denied[step, spot[0]] = error
            elif isinstance(error, QuotaExceeded):
                self._refuse(spot, error)
            elif isinstance(error, Rejected):
                self._singly.add(spot)
            else:
                passing.append((spot, error))
        if passing:
            # One by one from here: the look that follows tells most of them, and a token makes the rest safe.
            self._singly.update(spot for spot, _ in passing)
            await self._failed([spot for spot, _ in passing], passing[0][1])

    # ---- looking --------------------------------------------------------------------------------------------------

    async def _wait(self, spots: Sequence[Spot]) -> None:
        pace, loop = self._patience.pace, asyncio.get_running_loop()
        self._deadline = self._deadline or loop.time() + pace.settle
        if loop.time() > self._deadline:
            self._deadline = None
            for spot in spots:
                table, destination = spot
                self._refuse(spot, Unavailable(f"{destination} in {table} has not settled in {pace.settle:g} s"))
            return
        self._looks += 1
        await asyncio.sleep(pace.look(self._looks))
        await self._look(spots)

    async def _look(self, spots: Sequence[Spot]) -> None:
        for table in dict.fromkeys(spot[0] for spot in spots):
            about = [spot for spot in spots if spot[0] == table]
            if len(about) > 1:
                await self._read_whole(table)
            else:
                self._found[about[0]] = await self._reader.entries(*about[0])

    async def _read_whole(self, table: str) -> None:
        entries = await self._reader.entries(table)
        self._free[table] = fill(table, entries, self._quota).free
        by_destination: dict[Network, list[RouteEntry]] = {}
        for entry in entries:
            by_destination.setdefault(entry.destination, []).append(entry)
        for spot in self._open:
            if spot[0] == table:
                self._found[spot] = by_destination.get(spot[1], [])
