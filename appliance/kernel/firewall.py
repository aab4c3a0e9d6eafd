"""Which rules we want, as values, and the small interface of what puts them into the kernel.

`lines` turns `Rules` into an ordered list of rules of a few fixed shapes; `rules_of` turns a list read back into
`Rules`, or None when it is not exactly what `lines` writes. Both implementations render these same lines into chains
of their own, which are hooked once. Nothing of anybody else is ever flushed, moved or edited.

The forward chain, in order: what conntrack calls INVALID never leaves by a tunnel (it would go out un-NATed and draw
resets); packets with no end at the VPC are none of our business; replies and established flows pass without a look at
any CIDR; then per CIDR, the most specific first, what leaves by its tunnel passes and **what does not is rejected**.
So a packet for a proxied CIDR never leaves outside its tunnel, even with every route of ours deleted; the sender gets
an ICMP unreachable (never a TCP reset, which would kill a connection that the tunnel could still carry on).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from appliance.kernel.state import Network, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class FirewallError(Refused):
    """The rules are not in the kernel as wanted; the message names the rule or table and the reason."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the firewall has to hold.

    `masquerade`: (CIDR, device) whose packets take the device's address; `plain`: those whose packets keep theirs;
    `forward`: devices that traffic of the VPC may use; `clamp`: devices where TCP's MSS is held to the path's MTU;
    `mss`: (CIDR, device, bytes) where it is held to something else, 0 for leaving it alone;
    `vpc`: the device towards the VPC, which must be known as soon as anything is to be forwarded.
    """

    masquerade: frozenset[tuple[Network, str]] = frozenset()
    forward: frozenset[str] = frozenset()
    clamp: frozenset[str] = frozenset()
    vpc: str = ""
    plain: frozenset[tuple[Network, str]] = frozenset()
    mss: frozenset[tuple[Network, str, int]] = frozenset()

    def __post_init__(self) -> None:
        """Refuse what no list of rules can express."""
        if not self.vpc and (self.masquerade or self.forward or self.plain):
            raise ValueError("the device towards the VPC is not known: nothing can be forwarded without it")
        if both := self.masquerade & self.plain:
            raise ValueError(f"masqueraded and not at the same time: {sorted(map(str, both))}")

    @property
    def carried(self) -> frozenset[tuple[Network, str]]:
        """All (CIDR, device), masqueraded or not."""
        return self.masquerade | self.plain


class Chain(Enum):
    """The chains of ours, by where they are hooked."""

    FORWARD = "forward"
    POSTROUTING = "postrouting"
    MANGLE = "mangle"  # also on the forward hook, before FORWARD


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
    """One rule. Devices: "" is any, "!eth0" any but eth0. `size`: the MSS in bytes, of SET_MSS alone."""

    chain: Chain
    action: Action
    incoming: str = ""
    outgoing: str = ""
    destination: Network | None = None
    state: State = State.ANY
    source: Network | None = None
    size: int = 0

    def of(self, version: int) -> bool:
        """Whether this line belongs to this IP version (one without a network belongs to both)."""
        network = self.destination or self.source
        return network is None or network.version == version


def aimed(chain: Chain, action: Action, state: State, outgoing: str = "") -> bool:
    """Whether a line of this shape has a destination (a back-end may show 0.0.0.0/0 as none)."""
    if chain is Chain.FORWARD:
        return action is Action.REJECT or (action is Action.ACCEPT and state is State.ANY)
    return chain is Chain.POSTROUTING or (action in _BOTH_WAYS and bool(outgoing))


def sourced(chain: Chain, action: Action, incoming: str) -> bool:
    """Whether a line of this shape has a source."""
    return chain is Chain.MANGLE and action in _BOTH_WAYS and bool(incoming)


_BOTH_WAYS = frozenset({Action.RETURN, Action.SET_MSS})


def lines(rules: Rules) -> tuple[Line, ...]:
    """Return the rules to write, chain by chain, in order."""
    return (*_forward(rules), *_postrouting(rules), *_mangle(rules))


def _forward(rules: Rules) -> Iterable[Line]:
    devices = sorted(rules.forward)
    for device in devices:
        yield Line(Chain.FORWARD, Action.DROP, outgoing=device, state=State.INVALID)
    if rules.vpc:
        yield Line(Chain.FORWARD, Action.RETURN, incoming=f"!{rules.vpc}", outgoing=f"!{rules.vpc}")
    for device in devices:
        yield Line(Chain.FORWARD, Action.ACCEPT, device, rules.vpc, state=State.ESTABLISHED)
        yield Line(Chain.FORWARD, Action.ACCEPT, rules.vpc, device, state=State.ESTABLISHED)
    by_network: dict[Network, list[str]] = {}
    for network, device in _most_specific_first(rules.carried):
        by_network.setdefault(network, []).append(device)
    for network, allowed in by_network.items():
        for device in allowed:
            yield Line(Chain.FORWARD, Action.ACCEPT, rules.vpc, device, network)
        yield Line(Chain.FORWARD, Action.REJECT, rules.vpc, destination=network)


def _postrouting(rules: Rules) -> Iterable[Line]:
    for network, device in _most_specific_first(rules.carried):
        # Without the RETURN a wider masqueraded CIDR would catch what is to keep its source.
        action = Action.MASQUERADE if (network, device) in rules.masquerade else Action.RETURN
        yield Line(Chain.POSTROUTING, action, outgoing=device, destination=network)


def _mangle(rules: Rules) -> Iterable[Line]:
    sizes = {(network, device): size for network, device, size in rules.mss}
    for network, device in _most_specific_first(sizes):
        out = Line(Chain.MANGLE, Action.RETURN, outgoing=device, destination=network)
        back = Line(Chain.MANGLE, Action.RETURN, incoming=device, source=network)
        if size := sizes[network, device]:
            yield replace(out, action=Action.SET_MSS, size=size)
            yield replace(back, action=Action.SET_MSS, size=size)
        yield out
        yield back
    for device in sorted(rules.clamp):
        yield Line(Chain.MANGLE, Action.CLAMP, outgoing=device)
        yield Line(Chain.MANGLE, Action.CLAMP, incoming=device)


def _most_specific_first(pairs: Iterable[tuple[Network, str]]) -> list[tuple[Network, str]]:
    return sorted(pairs, key=lambda pair: (pair[0].version, -pair[0].prefixlen, int(pair[0].network_address), pair[1]))


def gather(found: Iterable[Line]) -> Rules | None:
    """Return the rules that these lines speak of, whatever their order; None if no rules do."""
    found = tuple(found)

    def pairs(action: Action) -> frozenset[tuple[Network, str]]:
        post = (line for line in found if line.chain is Chain.POSTROUTING and line.action is action)
        return frozenset((line.destination, line.outgoing) for line in post if line.destination is not None)

    own = [line for line in found if line.chain is Chain.FORWARD]
    vpcs = {line.incoming.removeprefix("!") for line in own if line.action is Action.RETURN}
    try:
        return Rules(
            masquerade=pairs(Action.MASQUERADE),
            forward=frozenset(line.outgoing for line in own if line.action is Action.DROP),
            clamp=frozenset(line.outgoing for line in found if line.action is Action.CLAMP and line.outgoing),
            vpc=vpcs.pop() if len(vpcs) == 1 else "",
            plain=pairs(Action.RETURN),
            mss=_sizes(found),
        )
    except ValueError:
        return None


def _sizes(found: Iterable[Line]) -> frozenset[tuple[Network, str, int]]:
    sizes: dict[tuple[Network, str], int] = {}
    for line in found:
        if line.chain is Chain.MANGLE and line.destination is not None:
            key = (line.destination, line.outgoing)
            sizes[key] = max(line.size, sizes.get(key, 0))
    return frozenset((network, device, size) for (network, device), size in sizes.items())


def rules_of(found: Sequence[Line]) -> Rules | None:
    """Return the rules whose `lines` these are, exactly and in order; None when there are none such."""
    rules = gather(found)
    return rules if rules is not None and lines(rules) == tuple(found) else None


@dataclass(frozen=True, slots=True)
class Seen:
    """What is in our chains. `faults` are texts of what we would not have written; empty when all is of our shapes."""

    lines: tuple[Line, ...]
    faults: tuple[str, ...] = ()


class Firewall(Protocol):
    """Where the rules live. Calls block for some milliseconds, at worst for the time-out of a lock: use a thread.

    `writes` counts transactions that the kernel took. Every method raises `FirewallError` and nothing else.
    """

    name: str
    writes: int

    def read(self) -> Rules | None:
        """Return what is in force, or None when it is not exactly as `write` would have left it."""
        ...

    def write(self, rules: Rules) -> None:
        """Make `rules` be what is in force, whole, and read it back; write nothing where it is so already."""
        ...

    def purge(self) -> None:
        """Remove every trace of ours; none there is no error."""
        ...


class Backend(ABC):
    """What the implementations share: they look and put, this compares."""

    name: str

    def __init__(self) -> None:
        self.writes = 0

    @abstractmethod
    def look(self) -> Seen:
        """Read our chains."""

    @abstractmethod
    def put(self, wanted: Sequence[Line]) -> None:
        """Replace the content of our chains, and hook them."""

    @abstractmethod
    def purge(self) -> None:
        """Remove every trace of ours; none there is no error."""

    def read(self) -> Rules | None:
        """Return what is in force, or None when it is not exactly as `write` would have left it."""
        seen = self.look()
        return None if seen.faults else rules_of(seen.lines)

    def write(self, rules: Rules) -> None:
        """Make `rules` be what is in force, whole, and read it back; write nothing where it is so already."""
        wanted = lines(rules)
        if self.look() == Seen(wanted):
            return
        self.put(wanted)
        seen = self.look()
        if seen != Seen(wanted):
            faults = (
                "; ".join(seen.faults) or f"{len(set(wanted) - set(seen.lines))} of {len(wanted)} rules are missing"
            )
            raise FirewallError(f"{self.name} took the rules but they are not there: {faults}")
