"""Which way a packet from a host of the VPC to one address takes, layer by layer, and where it stops. Pure.

The same questions that the packet asks: does anybody want it here, does the VPC's route table send it here, does this
machine carry it, does the link live, does something answer at its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appliance.model import Phase
from appliance.status import LayerState
from cloud.provider import Owner

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from appliance.status import CidrStatus, Layer, Status
    from cloud.provider import Observation, RouteEntry


@dataclass(frozen=True, slots=True)
class Step:
    """One layer's answer. `ok`: the packet goes on from here."""

    layer: str
    ok: bool
    text: str
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """`cidr`: the one of ours that it falls under; `next_hop`: where the VPC sends it, as far as the tables say."""

    answer: str
    steps: tuple[Step, ...]
    cidr: str | None
    next_hop: str | None


def explain(address: IPv4Address | IPv6Address, status: Status, seen: Observation | None) -> Explanation:
    """Follow a packet to `address`. `seen`: the route tables, None where the cloud has not answered."""
    cidr = _longest(address, [each for each in status.cidrs if each.intent.phase is Phase.PRESENT])
    steps = [_intent(address, cidr)]
    cloud, hop = _cloud(address, cidr, status, seen)
    steps.append(cloud)
    if cidr is not None:
        steps += [_layer("kernel", cidr.kernel, "see `nexthop status`"), _link(cidr, status)]
        if cidr.path.state is not LayerState.ABSENT:
            steps.append(_layer("path", cidr.path, "see whether the probe target lives"))
    return Explanation(_answer(address, steps, cidr, hop), tuple(steps), _name(cidr), hop)


def _longest(address: IPv4Address | IPv6Address, cidrs: Sequence[CidrStatus]) -> CidrStatus | None:
    inside = [each for each in cidrs if address in each.intent.network]
    return max(inside, key=lambda each: each.intent.network.prefixlen, default=None)


def _name(cidr: CidrStatus | None) -> str | None:
    return None if cidr is None else str(cidr.intent.network)


def _intent(address: object, cidr: CidrStatus | None) -> Step:
    if cidr is None:
        return Step(
            "intent",
            ok=False,
            text=f"no CIDR of ours holds {address}",
            next_step="`nexthop cidr add` the network it is in",
        )
    return Step("intent", ok=True, text=f"{address} falls under {cidr.intent.network}, via link {cidr.intent.via}")


def _cloud(
    address: IPv4Address | IPv6Address, cidr: CidrStatus | None, status: Status, seen: Observation | None
) -> tuple[Step, str | None]:
    if seen is None:
        error = status.cloud.error
        if error is not None:
            return Step("cloud", ok=False, text=error.text, next_step=error.next_step), None
        configured = status.cloud.provider != "none"
        text = "the cloud has not answered yet" if configured else "no cloud is configured: nothing sends packets here"
        return Step(
            "cloud", ok=False, text=text, next_step="" if configured else 'set [cloud] provider = "aliyun"'
        ), None
    hops, texts, here = [], [], True
    for table in seen.vpc.tables:
        entry = _wins(address, [each for each in seen.entries if each.table == table])
        where = "nowhere" if entry is None else f"{entry.next_hop or 'the VPC itself'} by {entry.destination}"
        texts.append(f"{table} sends it to {where}{_whose(entry, seen.vpc.instance_id)}")
        hops.append("" if entry is None else entry.next_hop)
        here = here and entry is not None and entry.next_hop == seen.vpc.instance_id
    step = "" if here else "see `nexthop routes`" if cidr is None else _mend(cidr)
    return Step("cloud", here and bool(hops), "; ".join(texts) or "there is no route table", step), next(
        iter(hops), None
    )


def _mend(cidr: CidrStatus) -> str:
    return cidr.cloud.detail if cidr.cloud.state is not LayerState.OK else "remove the more specific entry, or wait"


def _whose(entry: RouteEntry | None, instance: str) -> str:
    if entry is None or entry.owner is Owner.SYSTEM:
        return ""
    if entry.next_hop == instance:
        return " (here)"
    return " (not ours)" if entry.owner is not Owner.OURS else " (ours, not here)"


def _wins(address: IPv4Address | IPv6Address, entries: Sequence[RouteEntry]) -> RouteEntry | None:
    """Return the most specific entry that holds the address: that is how a VPC routes, its own vSwitches included."""
    inside = [each for each in entries if address in each.destination]
    return max(inside, key=lambda each: each.destination.prefixlen, default=None)


def _layer(name: str, layer: Layer, step: str) -> Step:
    ok = layer.state is LayerState.OK
    return Step(name, ok, layer.detail or layer.state.value, "" if ok else step)


def _link(cidr: CidrStatus, status: Status) -> Step:
    link = next((each for each in status.links if each.name == cidr.intent.via), None)
    if link is None:
        return Step(
            "link", ok=False, text=f"there is no link named {cidr.intent.via}", next_step="`nexthop link join` it"
        )
    if link.state == "up":
        rtt = "" if link.rtt_ms is None else f", round trip {link.rtt_ms:.1f} ms"
        doubt = f" ({link.reason})" if link.reason else ""
        return Step("link", ok=True, text=f"link {link.name} is up{rtt}{doubt}")
    why = f": {link.reason}" if link.reason else ""
    return Step("link", ok=False, text=f"link {link.name} is {link.state}{why}", next_step="see `nexthop status`")


def _answer(address: object, steps: Sequence[Step], cidr: CidrStatus | None, hop: str | None) -> str:
    if cidr is None:
        where = "its own way" if not hop else f"to {hop}"
        return f"{address} is none of ours; the VPC sends it {where}."
    bad = next((step for step in steps if not step.ok), None)
    if bad is None:
        return f"A host of the VPC reaches {address} through this machine and link {cidr.intent.via}."
    return f"A packet to {address} does not get through: {bad.text}."
