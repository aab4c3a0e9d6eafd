"""What is wrong with a VPC that shall carry CIDRs here, from what was read of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from itertools import groupby
from typing import Any, Final

from cloud.answers import network
from cloud.provider import Finding, Network, Observation, Owner, RouteEntry, State
from cloud.quota import advice, fill

_WINDOW_SECONDS: Final = 900  # by which a clock may be wrong before calls are refused
_UNEASY_SECONDS: Final = 60
_NODE_PREFIXES: Final = range(20, 29)
_SCARCE: Final = 10


def shadows(destination: Network, entries: Iterable[RouteEntry]) -> Iterator[RouteEntry]:
    """Yield the entries that are not ours, are more specific than `destination`, and therefore win."""
    for entry in entries:
        if entry.owner not in {Owner.OURS, Owner.SYSTEM} and _inside(entry.destination, destination):
            yield entry


def clock(skew: float | None) -> Finding:
    """Judge by how many seconds our clock is ahead."""
    fix = "timedatectl set-ntp true"
    if skew is None:
        return Finding("clock", State.UNKNOWN, "the cloud's time is not known", fix)
    text = f"this machine's clock is {skew:+.0f} s off the cloud's, which refuses calls from {_WINDOW_SECONDS} s on"
    if abs(skew) >= _WINDOW_SECONDS:
        return Finding("clock", State.FAIL, text, fix)
    return Finding("clock", State.WARN if abs(skew) > _UNEASY_SECONDS else State.OK, text, fix)


def interface(eni: str, region: str, told: Mapping[str, Any]) -> Finding:
    """Judge the source/destination check."""
    check = told.get("SourceDestCheck")
    if check is None:
        return Finding("source-dest-check", State.OK, f"this region knows no source/destination check of {eni}")
    if not check:
        return Finding("source-dest-check", State.OK, f"the source/destination check of {eni} is off")
    fix = (
        f"aliyun ecs ModifyNetworkInterfaceAttribute --RegionId {region} --NetworkInterfaceId {eni} "
        "--SourceDestCheck false"
    )
    return Finding("source-dest-check", State.FAIL, f"the source/destination check of {eni} drops what is routed", fix)


def security_group(
    group: str, rules: Sequence[Mapping[str, Any]], seen: Observation, wanted: Collection[Network]
) -> Finding:
    """Judge the appliance's security group: it sees the packets' real addresses, in both directions."""
    where = f"ECS console > Security Groups > {group} > Inbound: allow ALL from the VPC's CIDR"
    lacking = [cidr for _, cidr in seen.vpc.vswitches if not _admitted(cidr, rules)]
    if lacking:
        text = f"{group} does not let all protocols in from {_list(lacking)}: hosts there do not get through"
        return Finding("security-group", State.FAIL, text, where)
    barred = [cidr for cidr in wanted if any(_bars(rule, cidr) for rule in rules)]
    if barred:
        text = f"{group} has rules that drop packets to or from {_list(barred)}"
        return Finding("security-group", State.WARN, text, f"ECS console > Security Groups > {group}")
    return Finding("security-group", State.OK, f"{group} lets every vSwitch in")


@dataclass(frozen=True, slots=True)
class HostGroup:
    """A security group that hosts may be in. An `advanced` one lets nothing out that no rule accepts; others do."""

    name: str
    advanced: bool
    egress: Sequence[Mapping[str, Any]]

    def lets_out(self, cidr: Network) -> bool:
        """Tell whether some packets to `cidr` get out; the answers come back in, since groups are stateful."""
        if any(_bars(rule, cidr) for rule in self.egress):
            return False
        return not self.advanced or any(_covers(rule.get("DestCidrIp"), cidr) for rule in self.egress)


def host_groups(groups: Collection[HostGroup], wanted: Collection[Network], *, unseen: int) -> Iterator[Finding]:
    """Judge the groups of the VPC's hosts; only a warning, since nobody says which hosts shall reach the CIDRs."""
    for group in groups:
        barred = [cidr for cidr in wanted if not group.lets_out(cidr)]
        if barred:
            text = f"{group.name} does not let packets to {_list(barred)} out: hosts in it do not get through"
            fix = f"ECS console > Security Groups > {group.name} > Outbound: allow them, if its hosts shall reach them"
            yield Finding("host-security-groups", State.WARN, text, fix)
    if all(group.lets_out(cidr) for group in groups for cidr in wanted):
        more = f"; {unseen} more were not looked at" if unseen > 0 else ""
        text = f"{len(groups)} other groups of this VPC let packets to what is wanted out{more}"
        yield Finding("host-security-groups", State.OK, text)


def bypassed(seen: Observation) -> Iterator[Finding]:
    """Name the vSwitches whose hosts our entries do not reach."""
    for table in sorted({table for _, table in seen.vpc.bypassed}):
        vswitches = ", ".join(vswitch for vswitch, used in seen.vpc.bypassed if used == table)
        text = f"hosts in {vswitches} use {table}, which is not programmed: they reach none of the CIDRs"
        fix = f'add "{table}" to [cloud] route_tables, or give it the tag of [cloud] route_table_tag'
        yield Finding("vswitch-bypassed", State.WARN, text, fix)


def elsewhere(seen: Observation, policy: str) -> Iterator[Finding]:
    """Name what tables that are not programmed still send here, and those of which nobody knows."""
    for table in sorted({entry.table for entry in seen.elsewhere}):
        cidrs = _list(entry.destination for entry in seen.elsewhere if entry.table == table)
        text = f"{table} is not programmed any more, and still sends {cidrs} here by entries of ours"
        fix = f'add "{table}" to [cloud] route_tables again, or remove these entries; they go with their CIDRs'
        yield Finding("left-behind", State.WARN, text, fix)
    for table in seen.unread:
        text = f"{table} may not be read: whether it still sends something here by entries of ours is not known"
        yield Finding("table-unread", State.WARN, text, policy)


def tables(seen: Observation, wanted: Collection[Network]) -> Iterator[Finding]:
    """Judge how full the tables are."""
    for table in seen.vpc.tables:
        state = fill(table, seen.entries, seen.quota)
        there = {entry.destination for entry in seen.entries if entry.table == table}
        missing = sum(cidr not in there for cidr in wanted)
        text = f"{table} holds {state.ours + state.others} of {state.limit} custom entries, {state.ours} of them ours"
        shorter = advice(wanted)
        fix = "Quota Center > VPC > vpc_quota_route_entrys_num, then [cloud] route_quota" + (
            f"; or fewer CIDRs: {shorter}" if shorter else ""
        )
        if missing > state.free:
            yield Finding("quota", State.FAIL, f"{text}; {missing} more are wanted, and {state.free} fit", fix)
        else:
            scarce = state.free - missing < _SCARCE
            yield Finding("quota", State.WARN if scarce else State.OK, text, fix if scarce else "")


def conflicts(seen: Observation, wanted: Collection[Network]) -> Iterator[Finding]:
    """Name the entries that stand in the way of what is wanted."""
    for cidr in wanted:
        for entry in seen.to(cidr):
            if entry.owner in {Owner.OURS, Owner.EARLIER}:
                continue
            who = "was pointed by hand" if entry.owner is Owner.CHANGED else "is sent by somebody else's entry"
            text = f"{cidr} {who} to {entry.next_hop or 'the VPC itself'} in {entry.table}"
            fix = f"nexthop cidr adopt {cidr}, or remove that entry, or the CIDR here"
            yield Finding("conflict", State.FAIL, text, fix)
        for entry in shadows(cidr, seen.entries):
            text = f"{entry.table} sends {entry.destination} to {entry.next_hop}: more specific than {cidr}, so it wins"
            yield Finding("shadowed", State.WARN, text, "remove that entry, if it is not meant")
        for name, vswitch in seen.vpc.vswitches:
            if _inside(vswitch, cidr):
                text = f"the vSwitch {name} ({vswitch}) lies in {cidr}: its hosts are reached directly"
                yield Finding("vswitch-inside", State.WARN, text, "choose a CIDR without it")


def controllers(seen: Observation, wanted: Collection[Network]) -> Iterator[Finding]:
    """Recognise another controller of the table by its pattern: near CIDRs of one size, each to its own instance.

    So do the Kubernetes cloud controller and its likes write their nodes' pod CIDRs. The former deletes whatever else
    it finds in its cluster's CIDR, every five minutes.
    """
    theirs = [
        entry
        for entry in seen.entries
        if entry.owner is Owner.FOREIGN
        and isinstance(entry.destination, IPv4Network)
        and entry.destination.prefixlen in _NODE_PREFIXES
    ]
    theirs.sort(key=_family)
    for (table, block, _), group in groupby(theirs, key=_family):
        entries = list(group)
        hops = {entry.next_hop for entry in entries}
        if len(entries) < 2 or len(hops) < len(entries):
            continue
        hit = [cidr for cidr in wanted if isinstance(cidr, IPv4Network) and cidr.overlaps(block)]
        text = f"{table} looks as if a Kubernetes controller manages {block}: {len(entries)} nodes' CIDRs"
        if hit:
            text += f", and it deletes what is not its own there; {_list(hit)} would be"
            yield Finding("other-controller", State.FAIL, text, "use a route table that it does not manage")
        else:
            yield Finding("other-controller", State.WARN, text, "keep this appliance's CIDRs out of that range")


def _family(entry: RouteEntry) -> tuple[str, IPv4Network, int]:
    assert isinstance(entry.destination, IPv4Network)  # noqa: S101 - sorted out above
    return entry.table, entry.destination.supernet(new_prefix=16), entry.destination.prefixlen


def _inside(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.prefixlen > outer.prefixlen and inner.overlaps(outer)


def _admitted(cidr: Network, rules: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether all of `cidr` may send everything here; the first rule by priority decides, drop before accept."""
    fitting = [rule for rule in rules if _is(rule, "Direction", "ingress") and _covers(rule.get("SourceCidrIp"), cidr)]
    for rule in sorted(fitting, key=lambda each: (int(each.get("Priority") or 1), _is(each, "Policy", "accept"))):
        if _is(rule, "IpProtocol", "all"):
            return _is(rule, "Policy", "accept")
    return False


def _bars(rule: Mapping[str, Any], cidr: Network) -> bool:
    far = network(rule.get("DestCidrIp") or rule.get("SourceCidrIp") or "none")
    return _is(rule, "Policy", "drop") and far is not None and far.version == cidr.version and far.overlaps(cidr)


def _covers(text: object, cidr: Network) -> bool:
    outer = network(text)
    same = outer is not None and outer.version == cidr.version
    return same and outer is not None and outer.prefixlen <= cidr.prefixlen and outer.overlaps(cidr)


def _is(rule: Mapping[str, Any], name: str, value: str) -> bool:
    return str(rule.get(name)).lower() == value


def _list(networks: Iterable[Network]) -> str:
    return ", ".join(map(str, networks))
