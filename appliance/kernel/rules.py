"""Which rules we want, as values. Pure.

`layout` turns `Rules` into a short ordered list of rules of a few fixed shapes, and into sets of prefixes that these
refer to: one set for each combination of device and options that is in use, so that a thousand CIDRs are a dozen rules
and a packet costs the same as with one. The back-ends render the same layout into chains of their own, hooked once.

The forward chain, in order: what conntrack calls INVALID never leaves by a tunnel (it would go out un-NATed and draw
resets); nothing from a tunnel goes where the cloud's own services are; replies and established flows pass without a
look at any other set; **nothing else comes out of a tunnel**, unless its far end may begin connections, and then only
from a CIDR that is carried through it or from its own subnet; other packets with no end at the VPC are none of our
business; then what is in a device's set and leaves by that device passes, and **what does not is rejected**. So
a packet for a proxied CIDR never leaves outside its tunnel, even with every route of ours deleted; the sender gets
an ICMP unreachable (never a TCP reset, which would kill a connection that the tunnel could still carry on).

The input chain lets a tunnel's far end reach of this machine what answers pings, and nothing that listens: whoever has
that end may be anybody, and may claim any source. What is dropped is counted by the rule that drops it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import ip_network
from typing import Final

from appliance.kernel.prefixes import Prefix, disjoint
from appliance.kernel.state import Network

MARK: Final = "nexthop"  # every set's name begins with it
_BITS: Final = {4: 32, 6: 128}
# Where nobody beyond a tunnel has business: what clouds serve their instances, metadata with its credentials among it.
# RFC 6598 (Aliyun's 100.100.100.200 and resolvers are in there), RFC 3927, RFC 4291, and the IPv6 one of AWS.
_CLOSED: Final = tuple(map(ip_network, ("100.64.0.0/10", "169.254.0.0/16", "fd00:ec2::254/128", "fe80::/10")))


@dataclass(frozen=True, slots=True)
class Rules:
    """What the firewall has to hold.

    `masquerade`: (CIDR, device) whose packets take the device's address; `plain`: those whose packets keep theirs;
    `forward`: devices that traffic of the VPC may use; `clamp`: devices where TCP's MSS is held to the path's MTU;
    `mss`: (CIDR, device, bytes) where it is held to something else, 0 for leaving it alone;
    `vpc`: the device towards the VPC, which must be known as soon as anything is to be forwarded.
    `guarded`: devices out of which comes only what was asked for, `inbound`: those of them whose far end may begin
    connections to the VPC, `own`: (subnet, device) of the tunnels themselves, which may send, too; `six`: whether they
    are guarded in IPv6 as well, which takes tables for it.
    """

    masquerade: frozenset[tuple[Network, str]] = frozenset()
    forward: frozenset[str] = frozenset()
    clamp: frozenset[str] = frozenset()
    vpc: str = ""
    plain: frozenset[tuple[Network, str]] = frozenset()
    mss: frozenset[tuple[Network, str, int]] = frozenset()
    guarded: frozenset[str] = frozenset()
    inbound: frozenset[str] = frozenset()
    own: frozenset[tuple[Network, str]] = frozenset()
    six: bool = False

    def __post_init__(self) -> None:
        """Refuse what no list of rules can express."""
        if not self.vpc and (self.masquerade or self.forward or self.plain or self.inbound):
            raise ValueError("the device towards the VPC is not known: nothing can be forwarded without it")
        carried = self.masquerade | self.plain
        if len({network for network, _ in carried}) != len(self.masquerade) + len(self.plain):
            raise ValueError("a CIDR leaves by one device, and is either masqueraded or not")
        if len({(network, device) for network, device, _ in self.mss} & carried) != len(self.mss):
            raise ValueError("an MSS is that of a CIDR which is carried, and there is one for each")
        if not self.inbound | {device for _, device in self.own} <= self.guarded:
            raise ValueError("who may begin connections, and from where, is asked of devices that are guarded")

    @property
    def carried(self) -> frozenset[tuple[Network, str]]:
        """All (CIDR, device), masqueraded or not."""
        return self.masquerade | self.plain


class Chain(Enum):
    """The chains of ours, by where they are hooked."""

    FORWARD = "forward"
    POSTROUTING = "postrouting"
    MANGLE = "mangle"  # also on the forward hook, before FORWARD
    INPUT = "input"


class Action(Enum):
    """What a rule does."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"  # with ICMP host unreachable, as an unreachable route answers
    RETURN = "return"
    MASQUERADE = "masquerade"
    CLAMP = "clamp MSS to path MTU"
    SET_MSS = "set MSS"


class State(Enum):
    """What conntrack has to say of a packet."""

    ANY = ""
    INVALID = "invalid"
    ESTABLISHED = "established,related"


@dataclass(frozen=True, slots=True)
class Line:
    """One rule. Devices: "" is any, "!eth0" any but eth0. `destination`, `source`: the name of a set, "" for any.

    `size`: the MSS in bytes, of SET_MSS alone. `icmp`: only ICMP, or ICMPv6, as the version of its set says.
    """

    chain: Chain
    action: Action
    incoming: str = ""
    outgoing: str = ""
    destination: str = ""
    state: State = State.ANY
    source: str = ""
    size: int = 0
    icmp: bool = False

    def of(self, version: int) -> bool:
        """Whether this line belongs to this IP version (one without a set belongs to both)."""
        name = self.destination or self.source
        return not name or version_of(name) == version


@dataclass(frozen=True, slots=True)
class _Group:
    """The CIDRs that are treated alike. `mss`: None for clamping to the path, 0 for leaving it alone."""

    version: int
    device: str
    snat: bool
    mss: int | None

    @property
    def name(self) -> str:
        """The set's name, at most 31 characters (IPSET_MAXNAMELEN less one), e.g. nexthop4-tun-hk-s1300."""
        return f"{MARK}{self.version}-{self.device}-{'s' if self.snat else 'p'}{'' if self.mss is None else self.mss}"


def version_of(name: str) -> int:
    """Return the IP version of what is in the set of this name."""
    return int(name[len(MARK)])


@dataclass(frozen=True, slots=True)
class Layout:
    """`lines`: the rules to write, chain by chain, in order; `sets`: the prefixes, none of which overlap, by name."""

    lines: tuple[Line, ...] = ()
    sets: Mapping[str, frozenset[Prefix]] = field(default_factory=dict)


def layout(rules: Rules) -> Layout:
    """Return what to write."""
    sizes = {(network, device): size for network, device, size in rules.mss}
    sets: dict[_Group, frozenset[Prefix]] = {}
    for version, bits in _BITS.items():
        groups = {
            network: _Group(version, device, snat, sizes.get((network, device)))
            for pairs, snat in ((rules.masquerade, True), (rules.plain, False))
            for network, device in pairs
            if network.version == version
        }
        sets |= disjoint(groups, bits)
    names = {group.name: group for group in sets}
    used = [names[name] for name in sorted(names)]
    own, closed = _own(rules), _closed(rules)
    sources = _sources(rules, used, own)
    lines = (
        *_forward(rules, used, sources, sorted(closed)),
        *_postrouting(used),
        *_mangle(rules, used),
        *_input(sources),
    )
    return Layout(lines, {group.name: prefixes for group, prefixes in sets.items()} | own | closed)


def _own(rules: Rules) -> dict[str, frozenset[Prefix]]:
    """Return the tunnels' own subnets, as sets by name. Two tunnels may have the same."""
    found: dict[str, frozenset[Prefix]] = {}
    for version in _versions(rules):
        for device in rules.guarded:
            subnets = {net: device for net, at in rules.own if at == device and net.version == version}
            for prefixes in disjoint(subnets, _BITS[version]).values():
                found[_own_name(version, device)] = prefixes
    return found


def _own_name(version: int, device: str) -> str:
    return f"{MARK}{version}-{device}-own"


def _closed(rules: Rules) -> dict[str, frozenset[Prefix]]:
    """Return where nothing from a tunnel may go, as sets by name."""
    if not rules.guarded:
        return {}
    return {
        f"{MARK}{version}-closed": frozenset(
            (int(net.network_address), net.prefixlen) for net in _CLOSED if net.version == version
        )
        for version in _versions(rules)
    }


def _versions(rules: Rules) -> tuple[int, ...]:
    return (4, 6) if rules.six else (4,)


def _sources(rules: Rules, groups: Iterable[_Group], own: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """Return, by guarded device, the names of the sets that hold who may be at its far end."""
    carried = [(group.device, group.name) for group in groups]
    return {
        device: (
            *(name for at, name in carried if at == device),
            *(name for name in (_own_name(4, device), _own_name(6, device)) if name in own),
        )
        for device in sorted(rules.guarded)
    }


def _forward(
    rules: Rules, groups: Iterable[_Group], sources: Mapping[str, tuple[str, ...]], closed: Iterable[str]
) -> Iterator[Line]:
    """Yield the chain. `sources`: by guarded device; `closed`: the sets of where nothing from a tunnel may go."""
    devices = sorted(rules.forward)
    for device in devices:
        yield Line(Chain.FORWARD, Action.DROP, outgoing=device, state=State.INVALID)
    for device in sources:
        for name in closed:
            yield Line(Chain.FORWARD, Action.DROP, device, destination=name)
    for device in devices:
        yield Line(Chain.FORWARD, Action.ACCEPT, device, rules.vpc, state=State.ESTABLISHED)
        yield Line(Chain.FORWARD, Action.ACCEPT, rules.vpc, device, state=State.ESTABLISHED)
    for device, names in sources.items():
        yield Line(Chain.FORWARD, Action.RETURN, device, state=State.ESTABLISHED)  # begun here, or by leave of others
        for name in names if device in rules.inbound else ():
            yield Line(Chain.FORWARD, Action.ACCEPT, device, rules.vpc, source=name)
        yield Line(Chain.FORWARD, Action.DROP, device)
    if rules.vpc:
        yield Line(Chain.FORWARD, Action.RETURN, incoming=f"!{rules.vpc}", outgoing=f"!{rules.vpc}")
    for group in groups:
        yield Line(Chain.FORWARD, Action.ACCEPT, rules.vpc, group.device, group.name)
    for group in groups:
        yield Line(Chain.FORWARD, Action.REJECT, rules.vpc, destination=group.name)


def _input(sources: Mapping[str, tuple[str, ...]]) -> Iterator[Line]:
    """Yield the chain. It accepts nothing: what may pass is for others to judge, too."""
    for device, names in sources.items():
        yield Line(Chain.INPUT, Action.RETURN, device, state=State.ESTABLISHED)
        for name in names:
            yield Line(Chain.INPUT, Action.RETURN, device, source=name, icmp=True)
        yield Line(Chain.INPUT, Action.DROP, device)


def _postrouting(groups: Iterable[_Group]) -> Iterator[Line]:
    for group in groups:
        if group.snat:
            yield Line(Chain.POSTROUTING, Action.MASQUERADE, outgoing=group.device, destination=group.name)


def _mangle(rules: Rules, groups: Iterable[_Group]) -> Iterator[Line]:
    for group in groups:
        if group.mss is None:
            continue
        out = Line(Chain.MANGLE, Action.RETURN, outgoing=group.device, destination=group.name)
        back = Line(Chain.MANGLE, Action.RETURN, incoming=group.device, source=group.name)
        if group.mss:
            yield replace(out, action=Action.SET_MSS, size=group.mss)
            yield replace(back, action=Action.SET_MSS, size=group.mss)
        yield out
        yield back
    for device in sorted(rules.clamp):
        yield Line(Chain.MANGLE, Action.CLAMP, outgoing=device)
        yield Line(Chain.MANGLE, Action.CLAMP, incoming=device)
