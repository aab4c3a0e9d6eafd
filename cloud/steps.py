"""What to do next about one CIDR in one route table, from what the table holds. Pure.

Each write is followed by another look, so a time-out, a conflict or a duplicate needs no rule of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from cloud.provider import Duplicate, EntryStatus, Owner, Rejected, RouteEntry


class Step(Enum):
    """The next thing to do."""

    DONE = "done"
    WAIT = "wait"  # the cloud is at work on the entry
    CREATE = "create"
    MODIFY = "modify"  # to our next hop, with our mark, in place: the CIDR is never without an entry
    DELETE = "delete"


Goal = Callable[[Sequence[RouteEntry], str], Step]
"""From a table's entries for exactly one CIDR, and our instance, to the next step."""


def to_have(entries: Sequence[RouteEntry], instance: str) -> Step:
    """Return the step towards our entry being there, with `instance` as its next hop.

    Raises `Duplicate` for an entry that is not ours, or not any more, `Rejected` for the cloud's own.
    """
    if not entries:
        return Step.CREATE
    entry = entries[0]
    _not_the_clouds(entry)
    if entry.owner is Owner.CHANGED:
        told = f"was pointed at {entry.next_hop or 'nothing'} by hand: its entry {entry.entry_id} bears our mark"
        raise Duplicate(f"{entry.destination} in {entry.table} {told}")
    if entry.owner is Owner.FOREIGN:
        whose = f"entry {entry.entry_id} to {entry.next_hop or 'nowhere'}"
        raise Duplicate(f"{entry.destination} has an entry in {entry.table} that is not ours ({whose})")
    if entry.status is not EntryStatus.AVAILABLE:
        return Step.WAIT
    return Step.DONE if _is_right(entry, instance) else Step.MODIFY


def to_lack(entries: Sequence[RouteEntry], _instance: str) -> Step:
    """Return the step towards no entry of ours being there; one that leads to another machine stays."""
    if not entries or entries[0].owner is not Owner.OURS:
        return Step.DONE
    return Step.DELETE if entries[0].status is EntryStatus.AVAILABLE else Step.WAIT


def to_adopt(entries: Sequence[RouteEntry], instance: str) -> Step:
    """Return the step towards the entry that is there being ours, whosever it is; raise `Rejected` for the cloud's."""
    if not entries:
        return Step.DONE
    _not_the_clouds(entries[0])
    if entries[0].status is not EntryStatus.AVAILABLE:
        return Step.WAIT
    return Step.DONE if _is_right(entries[0], instance) else Step.MODIFY


def to_replace(entries: Sequence[RouteEntry], instance: str) -> Step:
    """Return the step towards our entry in the place of one that cannot be modified: there is a gap in between."""
    if not entries:
        return Step.CREATE
    if entries[0].status is not EntryStatus.AVAILABLE:
        return Step.WAIT
    return Step.DONE if _is_right(entries[0], instance) else Step.DELETE


def _is_right(entry: RouteEntry, instance: str) -> bool:
    return entry.owner is Owner.OURS and entry.next_hop == instance


def _not_the_clouds(entry: RouteEntry) -> None:
    if entry.owner is Owner.SYSTEM:
        raise Rejected(f"{entry.destination} is a route of the cloud's own in {entry.table}")
