"""May this CIDR be proxied? Reasons that a person understands and a program can match.

Refused is whatever *overlaps* something that must keep its own way, in either direction: a CIDR inside a forbidden
block and one that covers it do the same harm. `ipaddress.is_private` and its siblings are no guard: 0.0.0.0/0 is
"global" there, and 100.100.100.200 is neither private nor link-local. The cloud is none either: it takes a destination
more specific than 100.64.0.0/10, and one that contains a vSwitch.

Reasons come most telling first: blocks that the CIDR lies in before those that it covers, small before large among the
former and large before small among the latter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

from appliance.model import Intent, Network

if TYPE_CHECKING:
    from cloud.provider import RouteEntry, Vpc


class Severity(Enum):
    """REFUSE: it must not be. WARN: it may, but say so."""

    REFUSE = "refuse"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Reason:
    """One objection: `code` is stable, `text` and `next_step` are for people."""

    code: str
    severity: Severity
    text: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What the caller knows about the surroundings right now; empty means unknown, not free.

    `vpc`: as the cloud describes it, None before the first answer. `tunnel_servers`: the addresses of the links' far
    ends; `unresolved`: names of those that have none at the moment. `tunnel_subnets`: the networks on TUN devices.
    `local_networks`: (device, network) of every other device. `entries`: the
    cloud's route entries as last seen. `intents`: what is asked for already. `links`: names.
    """

    vpc: Vpc | None = None
    tunnel_servers: frozenset[IPv4Address | IPv6Address] = frozenset()
    unresolved: tuple[str, ...] = ()
    tunnel_subnets: frozenset[Network] = frozenset()
    local_networks: frozenset[tuple[str, Network]] = frozenset()
    entries: tuple[RouteEntry, ...] = ()
    intents: tuple[Intent, ...] = ()
    links: frozenset[str] = frozenset()


class _Block(NamedTuple):
    network: Network
    code: str
    what: str
    next_step: str
    only_covered: bool = False  # forbidden is to contain it; to lie in it is not


_OTHER: Final = "choose a CIDR that does not overlap it"

# RFC 6890 and the IANA special-purpose registries; 100.100.100.200 is the cloud's metadata service, and its DNS and
# package mirrors live in 100.64.0.0/10 too.
FORBIDDEN: Final = tuple(
    _Block(ip_network(cidr), code, what, _OTHER)
    for cidr, code, what in (
        ("100.100.100.200/32", "metadata", "the cloud's metadata service"),
        ("100.64.0.0/10", "reserved", "the range that the cloud keeps for its own services"),
        ("0.0.0.0/8", "this-host", "the 'this host' range"),
        ("127.0.0.0/8", "loopback", "the loopback range"),
        ("169.254.0.0/16", "link-local", "the link-local range"),
        ("224.0.0.0/4", "multicast", "the multicast range"),
        ("255.255.255.255/32", "broadcast", "the broadcast address"),
        ("240.0.0.0/4", "future-use", "the range kept for future use"),
        ("::/128", "this-host", "the unspecified address"),
        ("::1/128", "loopback", "the loopback address"),
        ("::ffff:0:0/96", "v4-mapped", "the IPv4-mapped range"),
        ("fe80::/10", "link-local", "the link-local range"),
        ("ff00::/8", "multicast", "the multicast range"),
    )
)

_OTHERS: Final = frozenset({"foreign", "changed", "earlier"})  # cloud.provider.Owner: entries that are not ours

# Shorter than this is never one cluster: most likely a typing error, and it would cover half of somebody's network.
SHORTEST: Final = {4: 8, 6: 16}


def overlap(one: Network, other: Network) -> bool:
    """Return whether two networks share an address, whichever contains the other; never across IP versions."""
    return one.version == other.version and one.overlaps(other)


def within(inner: Network, outer: Network) -> bool:
    """Return whether all of `inner` lies in `outer`."""
    return overlap(inner, outer) and inner.prefixlen >= outer.prefixlen


def judge(network: Network, facts: Facts, *, via: str | None = None) -> tuple[Reason, ...]:
    """Return every objection to proxying `network` via the link `via`; none of severity REFUSE means it may be.

    Without `via` the questions about links are not asked.
    """
    if network.prefixlen == 0:  # covers everything below: one reason says it all
        text = f"{network} is the default route: every packet of the VPC would enter the tunnel"
        return (Reason("default-route", Severity.REFUSE, text, "name the far network, such as 10.244.0.0/16"),)
    reasons = [
        Reason(block.code, Severity.REFUSE, _how(network, block), block.next_step)
        for block in sorted(_blocks(facts), key=lambda block: _rank(network, block))
        if _touches(network, block)
    ]
    if network.prefixlen < SHORTEST[network.version]:
        text = f"{network} is shorter than /{SHORTEST[network.version]}"
        reasons.append(Reason("too-short", Severity.REFUSE, text, "name the far network itself, or several of them"))
    reasons = _without_echoes(reasons)
    if via is not None:
        reasons.extend(_about_links(network, via, facts))
    reasons.extend(_warnings(network, facts, reasons))
    return tuple(reasons)


def trespasses(network: Network, vpc: Vpc) -> Reason | None:
    """Return what `network` takes from the VPC itself: with a route to the tunnel its hosts would get no answer."""
    touched = [block for block in _vpc_blocks(vpc) if _touches(network, block)]
    if not touched:
        return None
    block = min(touched, key=lambda block: _rank(network, block))
    return Reason(block.code, Severity.REFUSE, _how(network, block), block.next_step)


def refused(reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
    """Return those that forbid."""
    return tuple(reason for reason in reasons if reason.severity is Severity.REFUSE)


def _blocks(facts: Facts) -> Iterator[_Block]:
    """Everything that keeps its own way, except for the VPC's CIDR, of which unused parts may be proxied."""
    yield from FORBIDDEN
    for address in facts.tunnel_servers:
        step = "choose a CIDR without it: the tunnel's own packets would enter the tunnel"
        yield _Block(ip_network(address), "tunnel-server", f"the tunnel server {address}", step)
    for subnet in facts.tunnel_subnets:
        yield _Block(subnet, "tunnel-subnet", f"the tunnel's own subnet {subnet}", _OTHER)
    if facts.vpc is not None:
        yield from _vpc_blocks(facts.vpc)
    for device, local in facts.local_networks:
        yield _Block(local, "local-network", f"{local} on this machine's {device}", _OTHER)


def _vpc_blocks(vpc: Vpc) -> Iterator[_Block]:
    for name, vswitch in vpc.vswitches:
        step = f"{_OTHER}: hosts of the VPC live there"
        yield _Block(vswitch, "overlaps-vswitch", f"the vSwitch {name} ({vswitch})", step)
    for cidr in vpc.cidrs:
        step = "name only the far network"
        yield _Block(cidr, "contains-vpc", f"the VPC itself ({cidr})", step, only_covered=True)


def _touches(network: Network, block: _Block) -> bool:
    if block.only_covered:
        return within(block.network, network)
    return overlap(network, block.network)


def _rank(network: Network, block: _Block) -> tuple[int, int]:
    if within(network, block.network):
        return (0, -block.network.prefixlen)
    return (1, block.network.prefixlen)


def _how(network: Network, block: _Block) -> str:
    if network == block.network:
        return f"{network} is {block.what}"
    return f"{network} {'lies in' if within(network, block.network) else 'contains'} {block.what}"


def _without_echoes(reasons: list[Reason]) -> list[Reason]:
    """Leave out what another reason implies: who is told about the VPC need not hear of each of its vSwitches."""
    codes = {reason.code for reason in reasons}
    echoes = set()
    if "contains-vpc" in codes:
        echoes |= {"overlaps-vswitch", "local-network"}
    if "overlaps-vswitch" in codes:
        echoes.add("local-network")
    return [reason for reason in reasons if reason.code not in echoes]


def _about_links(network: Network, via: str, facts: Facts) -> Iterator[Reason]:
    """Each CIDR has one way: not by a link that is not there, and not by two."""
    if via not in facts.links:
        known = ", ".join(sorted(facts.links)) or "none yet"
        text = f"there is no link named {via!r} (there is: {known})"
        yield Reason("link-unknown", Severity.REFUSE, text, "name one of them, or `nexthop link join` a new one first")
        return
    for intent in facts.intents:
        if intent.via != via and overlap(network, intent.network):
            text = f"{network} overlaps {intent.network}, which goes via link {intent.via}"
            step = f"`nexthop cidr rm {intent.network}` first, or use that link"
            yield Reason("other-link", Severity.REFUSE, text, step)


def _warnings(network: Network, facts: Facts, reasons: list[Reason]) -> Iterator[Reason]:
    vpcs = () if facts.vpc is None else facts.vpc.cidrs
    if not reasons and any(within(network, cidr) for cidr in vpcs):
        text = f"{network} lies in the VPC's own CIDR, in no vSwitch yet"
        yield Reason("inside-vpc", Severity.WARN, text, "make no vSwitch there as long as it is proxied")
    for entry in facts.entries:
        if entry.owner.value in _OTHERS and entry.destination != network and within(entry.destination, network):
            text = f"{entry.table} sends {entry.destination} to {entry.next_hop}: more specific, so it wins there"
            yield Reason("shadowed", Severity.WARN, text, "remove that route entry, if it is not meant")
    for name in facts.unresolved:
        text = f"the tunnel server {name} has no known address: whether {network} contains it could not be checked"
        yield Reason("tunnel-server-unknown", Severity.WARN, text, "mend the name's DNS record; it is checked again")
