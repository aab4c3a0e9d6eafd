"""What to do next about one CIDR in one route table, from what the table holds. Pure.

Each write is followed by another look, so a time-out, a conflict or a duplicate needs no rule of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from cloud.provider import Duplicate, EntryStatus, Owner, Rejected, RouteEntry


class Step(Enum):
    """The next thing to do."""

    DONE = "done"
    WAIT = "wait"  # the cloud is at work on our entry
    CREATE = "create"
    MODIFY = "modify"  # ours, but to another next hop: change it in place, so that the CIDR is never without an entry
    DELETE = "delete"


def to_have(entries: Sequence[RouteEntry], instance: str) -> Step:
    """Return the step towards our entry being there, with `instance` as its next hop.

    `entries` are those of the table for exactly our CIDR. Raises `Duplicate` for somebody else's, `Rejected` for the
    cloud's own.
    """
    if not entries:
        return Step.CREATE
    entry = entries[0]
    if entry.owner is Owner.SYSTEM:
        raise Rejected(f"{entry.destination} is a route of the cloud's own in {entry.table}")
    if entry.owner is Owner.FOREIGN:
        whose = f"entry {entry.entry_id} to {entry.next_hop or 'nowhere'}"
        raise Duplicate(f"{entry.destination} has an entry in {entry.table} that is not ours ({whose})")
    if entry.status is not EntryStatus.AVAILABLE:
        return Step.WAIT
    return Step.DONE if entry.next_hop == instance else Step.MODIFY


def to_lack(entries: Sequence[RouteEntry]) -> Step:
    """Return the step towards no entry of ours being there; somebody else's is none of our business."""
    if not entries or entries[0].owner is not Owner.OURS:
        return Step.DONE
    return Step.DELETE if entries[0].status is EntryStatus.AVAILABLE else Step.WAIT
