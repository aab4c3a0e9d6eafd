"""What the next passes would change in the cloud, as values: the same decisions, with nothing sent. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from appliance.model import Intent, Network, Phase
from cloud.provider import Duplicate, Observation, Owner, Rejected, RouteEntry
from cloud.quota import Aggregate, Fill, aggregates, fill
from cloud.steps import Step, to_have, to_lack


class Action(Enum):
    """What would happen to one CIDR in one table."""

    CREATE = "create"
    MODIFY = "modify"
    DELETE = "delete"
    WAIT = "wait"  # for the cloud, or for the kernel to carry it
    BLOCKED = "blocked"  # by an entry that is not ours, or a full table
    STRAY = "stray"  # ours, and nobody asked for it: left until a person says otherwise


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the plan; `now` says what the table holds."""

    action: Action
    cidr: Network
    table: str
    now: str
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Nothing in `changes`: everything is as it should be."""

    changes: tuple[Change, ...]
    tables: tuple[Fill, ...]
    aggregates: tuple[Aggregate, ...]


_TEXTS: Final = {
    Step.CREATE: (Action.CREATE, "an entry to this instance is made"),
    Step.MODIFY: (Action.MODIFY, "the entry is pointed here, in place"),
    Step.DELETE: (Action.DELETE, "our entry is removed"),
    Step.WAIT: (Action.WAIT, "the cloud is at work on it"),
}


def plan(
    intents: Iterable[Intent], carrying: Collection[Network], released: Collection[Network], seen: Observation
) -> Plan:
    """Return what would be done about each CIDR in each table."""
    asked = {intent.network: intent for intent in intents}
    fills = {table: fill(table, seen.entries, seen.quota) for table in seen.vpc.tables}
    free = {table: state.free for table, state in fills.items()}
    changes: list[Change] = []
    for network, intent in asked.items():
        for table in seen.vpc.tables:
            changes.extend(_of(intent, table, seen, carried=network in carrying, free=free))
    for entry in (*seen.entries, *seen.elsewhere):
        if entry.owner is Owner.OURS and entry.destination not in asked:
            goes = entry.destination in released
            action = Action.DELETE if goes else Action.STRAY
            text = "it was given back" if goes else "nobody asked for it: `nexthop stray rm` removes it"
            changes.append(Change(action, entry.destination, entry.table, _now([entry]), text))
    for entry in seen.elsewhere:
        if entry.destination in asked:
            goes = asked[entry.destination].phase is not Phase.PRESENT
            action = Action.DELETE if goes else Action.STRAY
            text = "our entry is removed" if goes else "its table is not programmed any more: it goes with its CIDR"
            changes.append(Change(action, entry.destination, entry.table, _now([entry]), text))
    wanted = [network for network, intent in asked.items() if intent.phase is Phase.PRESENT]
    return Plan(tuple(changes), tuple(fills.values()), aggregates(wanted))


def _of(intent: Intent, table: str, seen: Observation, *, carried: bool, free: dict[str, int]) -> Iterator[Change]:
    network = intent.network
    found = [entry for entry in seen.to(network) if entry.table == table]
    present = intent.phase is Phase.PRESENT
    try:
        step = (to_have if present else to_lack)(found, seen.vpc.instance_id)
    except (Duplicate, Rejected) as error:
        yield Change(Action.BLOCKED, network, table, _now(found), str(error))
        return
    if step is Step.DONE:
        return
    action, text = _TEXTS[step]
    if present and not carried:
        action, text = Action.WAIT, "the kernel does not carry it yet"
    elif step is Step.CREATE:
        free[table] -= 1
        if free[table] < 0:
            action, text = Action.BLOCKED, f"{table} has no room for it"
    yield Change(action, network, table, _now(found), text)


def _now(found: Collection[RouteEntry]) -> str:
    return "; ".join(f"to {entry.next_hop or 'the VPC itself'}, {entry.status.value}" for entry in found) or "no entry"
