"""Where packets go when the cloud's entry for a CIDR is withdrawn: judged before an operator asks for that. Pure.

Without our entry the VPC follows the next less specific one. Where that is a default route, packets that were meant for
the tunnel leave in the clear, to whoever is out there: that takes the operator's word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.guard import Reason, Severity, within
from appliance.options import WhenDown
from cloud.provider import Owner

if TYPE_CHECKING:
    from appliance.model import Intent, Network
    from cloud.provider import Observation, RouteEntry


def less_specific(network: Network, observation: Observation) -> RouteEntry | None:
    """Return the entry that takes over where the one for exactly `network` goes."""
    wider = [
        entry
        for entry in observation.entries
        if entry.destination != network and within(network, entry.destination) and entry.owner is not Owner.OURS
    ]
    return max(wider, key=lambda entry: entry.destination.prefixlen, default=None)


def judge(intent: Intent, observation: Observation | None) -> tuple[Reason, ...]:
    """Return what speaks against withdrawing; nothing for a policy that keeps the entry."""
    if intent.when_down is WhenDown.KEEP:
        return ()
    if observation is None:
        text = "the cloud has not answered yet: where packets go without the route entry could not be checked"
        return (Reason("way-unknown", Severity.WARN, text, "see `nexthop status` for why, and check it yourself"),)
    way = less_specific(intent.network, observation)
    if way is None:
        text = f"the VPC has no other way to {intent.network}: while the link is down its packets vanish in silence"
        return (Reason("no-other-way", Severity.WARN, text, "keep the entry: then hosts are told at once"),)
    if way.destination.prefixlen == 0:
        text = (
            f"the VPC's other way to {intent.network} is its default route (to {way.next_hop or way.next_hop_type}): "
            "while the link is down its packets would leave unprotected"
        )
        step = "keep the entry, or say --force (force: true) where that is wanted"
        return (Reason("leaves-unprotected", Severity.REFUSE, text, step),)
    return ()
