"""The API's JSON as values, and our mark on a route entry. Pure.

Route entries cannot be tagged, so the mark is in name and description, and only an entry that carries **both** exactly
as we write them is ours: what a person has renamed is theirs, and so is what a person has pointed elsewhere. What
another machine of the same appliance has written for itself is that one's, until a person says that we take over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, Final

from cloud.provider import EntryStatus, Network, Owner, RouteEntry

Body = Mapping[str, Any]

_STATUSES: Final = {status.value.lower(): status for status in EntryStatus}


@dataclass(frozen=True, slots=True)
class Mark:
    """Whose we are, written into every entry: ``nexthop:APPLIANCE:EPOCH:NEXT-HOP``.

    `epoch` counts takeovers, and only a person raises it: what another machine has written for itself in an earlier
    epoch is to be pointed here, what it has written in ours or a later one is its own. `hop` is the instance that we
    make the next hop; since it is written down, a next hop that somebody has changed by hand is told from one that the
    machine which wrote the entry has set.
    """

    appliance: str
    epoch: int = 1
    hop: str = ""

    @property
    def name(self) -> str:
        """The RouteEntryName, up to 128 characters."""
        return f"nexthop-{self.appliance}"

    @property
    def description(self) -> str:
        """The Description, up to 256 characters."""
        return f"nexthop:{self.appliance}:{self.epoch}" + (f":{self.hop}" if self.hop else "")

    def owner(self, name: str, description: str, hop: str) -> Owner:
        """Say whose an entry with these texts and this next hop is."""
        beginning = f"nexthop:{self.appliance}:"
        if name != self.name or not description.startswith(beginning):
            return Owner.FOREIGN
        epoch, _, written = description.removeprefix(beginning).partition(":")
        if not epoch.isdecimal() or int(epoch) > self.epoch:
            return Owner.FOREIGN
        if hop == self.hop:
            return Owner.OURS
        if written not in {"", hop}:
            return Owner.CHANGED
        return Owner.EARLIER if int(epoch) < self.epoch else Owner.FOREIGN


@dataclass(frozen=True, slots=True)
class Place:
    """A vSwitch, and the route table it uses. `kind`: "system", "custom", or empty where the cloud does not say."""

    vswitch: str
    cidr: Network
    table: str
    kind: str = ""


def entry(item: Body, table: str, mark: Mark) -> RouteEntry | None:
    """Read one entry of DescribeRouteEntryList; None for one that is to a prefix list instead of a CIDR."""
    destination = network(item.get("DestinationCidrBlock"))
    if destination is None:
        return None
    hops = (item.get("NextHops") or {}).get("NextHop") or [{}]
    name, description = item.get("RouteEntryName") or "", item.get("Description") or ""
    hop = hops[0].get("NextHopId") or ""
    return RouteEntry(
        destination=destination,
        next_hop=hop,
        next_hop_type=hops[0].get("NextHopType") or "",
        table=item.get("RouteTableId") or table,
        entry_id=item.get("RouteEntryId") or "",
        owner=mark.owner(name, description, hop) if item.get("Type") == "Custom" else Owner.SYSTEM,
        status=_STATUSES.get(str(item.get("Status")).lower(), EntryStatus.PENDING),
        name=name,
        description=description,
    )


def cidrs(vpc: Body) -> tuple[Network, ...]:
    """Read every CIDR of one item of DescribeVpcs: the primary one first, then secondary and IPv6 ones."""
    secondary = (vpc.get("SecondaryCidrBlocks") or {}).get("SecondaryCidrBlock") or []
    sixes = (vpc.get("Ipv6CidrBlocks") or {}).get("Ipv6CidrBlock") or []
    texts = [vpc.get("CidrBlock"), *secondary, vpc.get("Ipv6CidrBlock"), *(six.get("Ipv6CidrBlock") for six in sixes)]
    found = (network(text) for text in texts)
    return tuple(dict.fromkeys(each for each in found if each is not None))


def place(vswitch: Body) -> Place | None:
    """Read one item of DescribeVSwitches."""
    cidr = network(vswitch.get("CidrBlock"))
    if cidr is None:
        return None
    table = vswitch.get("RouteTable") or {}
    kind = str(table.get("RouteTableType") or "").lower()
    return Place(str(vswitch["VSwitchId"]), cidr, table.get("RouteTableId") or "", kind)


def network(text: object) -> Network | None:
    """Read a CIDR, or return None for anything else."""
    try:
        return ip_network(str(text), strict=False)
    except ValueError:
        return None
