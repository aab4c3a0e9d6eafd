"""What a route table's entries, and the cloud's errors, mean for one CIDR. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from appliance.model import Intent, Network, Phase
from appliance.reconcile import AttractStep, Entry
from appliance.status import Layer, LayerState, Problem
from cloud.provider import (
    CloudError,
    Conflict,
    Denied,
    Duplicate,
    EntryStatus,
    Observation,
    Owner,
    QuotaExceeded,
    Rejected,
    Throttled,
)

if TYPE_CHECKING:
    from cloud.provider import RouteEntry, Vpc


def found(network: Network, seen: Observation) -> str:
    """Return what the tables hold for a CIDR, in a few words."""
    there = {entry.table: f"{entry.status.value}, to {entry.next_hop or 'nothing'}" for entry in seen.to(network)}
    return "; ".join(f"{table}: {there.get(table, 'none')}" for table in seen.vpc.tables)


def classify(seen: Observation, network: Network, *, takes: bool = True, goes: bool = False) -> Entry:
    """Return what the route tables hold for this CIDR, all of ours taken together.

    `takes`: what is to be taken over from another machine counts as ours, to be changed; otherwise it does not count.
    `goes`: what is left of ours in tables that we program no more counts, too, since packets still come by it.
    """
    entries = [entry for entry in seen.to(network) if takes or entry.owner is not Owner.EARLIER]
    if goes:
        entries += [entry for entry in seen.elsewhere if entry.destination == network]
    ours = [entry for entry in entries if entry.owner in _OURS]
    if len(ours) < len(entries):
        return Entry.MIXED if ours else Entry.FOREIGN
    if not ours:
        return Entry.ABSENT
    good = {entry.table for entry in ours if _is_good(entry, seen.vpc)}
    return Entry.READY if good == set(seen.vpc.tables) and len(ours) == len(good) else Entry.UNSETTLED


def _is_good(entry: RouteEntry, vpc: Vpc) -> bool:
    return entry.status is EntryStatus.AVAILABLE and entry.next_hop == vpc.instance_id


_OURS: Final = frozenset({Owner.OURS, Owner.EARLIER})


def layer_of(step: AttractStep, intent: Intent, seen: Observation) -> Layer:
    """Return what a step that sends nothing says of its CIDR."""
    if step is AttractStep.BLOCKED:
        theirs = next(entry for entry in seen.to(intent.network) if entry.owner not in _OURS)
        if theirs.owner is Owner.CHANGED:
            text = f"{theirs.table} sends it to {theirs.next_hop or 'nothing'}: our entry was pointed there by hand"
            return Layer(LayerState.ERROR, text, "changed-by-hand")
        where = f"{theirs.table} already sends it to {theirs.next_hop or 'the VPC itself'}"
        named = f" ({theirs.name})" if theirs.name else ""
        return Layer(LayerState.ERROR, f"{where}{named}, by an entry that is not ours", "foreign-entry")
    if intent.phase is not Phase.PRESENT:
        return Layer(LayerState.PENDING, "the cloud sends it here no more", "withdrawn")
    if step is AttractStep.WITHHELD:
        return Layer(LayerState.ABSENT, f"withdrawn while link {intent.via} is down, as asked for", "withheld")
    if step is AttractStep.WAIT:
        return Layer(LayerState.PENDING, "waits until the kernel carries it", "waiting-kernel")
    return Layer(LayerState.OK, f"{', '.join(seen.vpc.tables)} -> {seen.vpc.instance_id}")


def cloud_problem(error: CloudError) -> Problem:
    """Return an error as a person should see it. Support asks for the request id."""
    code, step = next((found for kind, *found in _PROBLEMS if isinstance(error, kind)), _UNAVAILABLE)
    asked = f" [{', '.join(filter(None, (error.code, error.request_id)))}]" if error.code or error.request_id else ""
    return Problem(code, f"cloud: {error}{asked}", step)


_UNAVAILABLE: Final = ["cloud-unavailable", "packets keep flowing; it is tried again"]
_PROBLEMS: Final[tuple[tuple[type[CloudError], str, str], ...]] = (
    (Throttled, "cloud-throttled", "nothing: it is tried again, slower"),
    (Conflict, "cloud-busy", "nothing: it is tried again when the other change of the VPC is done"),
    (
        Duplicate,
        "foreign-entry",
        "`nexthop cidr adopt` that entry, or remove it, or the CIDR here",
    ),
    (QuotaExceeded, "cloud-quota", "raise the route table's quota, or add one larger CIDR instead of several"),
    (Denied, "cloud-denied", "give the instance's role the permissions that `nexthop ram-policy` prints"),
    (Rejected, "cloud-rejected", "remove the CIDR, or mend what the cloud complains about"),
)
