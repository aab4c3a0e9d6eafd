"""What nexthop-forward and nexthopd say to each other, as values and as lines of JSON. Pure.

    nexthopd          nexthop-forward
    Hello         <->  Hello       first, from both; another version ends the conversation
    Wake           ->              intents or links have changed
                  <-   State       all of it, at the start and whenever something of it has changed
                  <-   Removing    this is about to be removed, and this is carried from now on
    Stays          ->              the answer: what must stay after all; without it nothing is removed
                  <-   Gone        the kernel holds nothing of these any more: their records, if they are still those
                                   that were read, may be dropped
                  <-   Repaired    something of ours that had vanished was put back
                  <-   Passed      a look at the kernel has come to its end
    Show           ->              what does the firewall hold? Only a person's wish to know is behind it
                  <-   Shown       the answer

A message is one line: {"is": "wake", ...}. Networks are texts. The two are always of the same release, so a message
that does not read as it should is a mistake of ours, and ends the conversation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, Final

from appliance.model import Network
from appliance.status import FirewallStatus, Layer, LayerState

VERSION: Final = 2
_NO_FIREWALL: Final = FirewallStatus("")
LINE_LIMIT: Final = 16 << 20  # bytes; a State of ten thousand CIDRs is one


class BadMessage(ValueError):
    """A line that neither end of this release writes."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first word of each end."""

    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Wake:
    """Look again: what is asked for has changed."""


@dataclass(frozen=True, slots=True)
class State:
    """What `forward` knows. `problem`: why the last pass failed; `repairs`: how often which kind was mended."""

    ready: bool = False
    problem: str | None = None
    carrying: frozenset[Network] = frozenset()
    layers: Mapping[Network, Layer] = field(default_factory=dict)
    firewall: FirewallStatus = _NO_FIREWALL
    repairs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Removing:
    """What is about to be removed of `networks`, which nobody asked for as the pass began."""

    number: int
    carrying: frozenset[Network]
    networks: frozenset[Network]


@dataclass(frozen=True, slots=True)
class Stays:
    """The answer to the `Removing` of that number: these are asked for again."""

    number: int
    networks: frozenset[Network]


@dataclass(frozen=True, slots=True)
class Gone:
    """The kernel was seen without these, each of which was WITHDRAWN at that revision of its record."""

    revisions: Mapping[Network, int]


@dataclass(frozen=True, slots=True)
class Repaired:
    """One repair, or several of a kind at once."""

    kind: str
    what: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Passed:
    """One pass, and how many seconds it took."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Show:
    """Say what rules there are."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Every firewall rule of this machine: texts, by what shows it."""

    rules: Mapping[str, str]


Message = Hello | Wake | State | Removing | Stays | Gone | Repaired | Passed | Show | Shown


def encode(message: Message) -> bytes:
    """Return the message as a line."""
    return json.dumps({"is": type(message).__name__.lower(), **_fields(message)}).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Read a line; raise `BadMessage`."""
    try:
        said = json.loads(line)
        return _READERS[said["is"]](said)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadMessage(f"{line[:80]!r}: {type(error).__name__}: {error}") from None


def _fields(message: Message) -> dict[str, object]:
    match message:
        case Hello(version):
            return {"version": version}
        case Wake() | Show():
            return {}
        case State():
            return {
                "ready": message.ready,
                "problem": message.problem,
                "carrying": _texts(message.carrying),
                "layers": {str(net): [at.state.value, at.detail, at.code] for net, at in message.layers.items()},
                "firewall": [message.firewall.name, message.firewall.fallback_reason],
                "repairs": dict(message.repairs),
            }
        case Removing(number, carrying, networks):
            return {"number": number, "carrying": _texts(carrying), "networks": _texts(networks)}
        case Stays(number, networks):
            return {"number": number, "networks": _texts(networks)}
        case Gone(revisions):
            return {"revisions": {str(network): revision for network, revision in revisions.items()}}
        case Repaired(kind, what, count):
            return {"kind": kind, "what": what, "count": count}
        case Passed(seconds):
            return {"seconds": seconds}
        case Shown(rules):
            return {"rules": dict(rules)}


def _texts(networks: Iterable[Network]) -> list[str]:
    return [str(network) for network in networks]


def _networks(texts: Iterable[str]) -> frozenset[Network]:
    return frozenset(map(ip_network, texts))


def _state(said: Mapping[str, Any]) -> State:
    problem = said["problem"]
    return State(
        ready=said["ready"] is True,
        problem=None if problem is None else str(problem),
        carrying=_networks(said["carrying"]),
        layers={
            ip_network(cidr): Layer(LayerState(state), detail, code)
            for cidr, (state, detail, code) in said["layers"].items()
        },
        firewall=FirewallStatus(*said["firewall"]),
        repairs={str(kind): int(count) for kind, count in said["repairs"].items()},
    )


_READERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Message]]] = {
    "hello": lambda said: Hello(int(said["version"])),
    "wake": lambda _said: Wake(),
    "state": _state,
    "removing": lambda said: Removing(int(said["number"]), _networks(said["carrying"]), _networks(said["networks"])),
    "stays": lambda said: Stays(int(said["number"]), _networks(said["networks"])),
    "gone": lambda said: Gone({ip_network(cidr): int(revision) for cidr, revision in said["revisions"].items()}),
    "repaired": lambda said: Repaired(str(said["kind"]), str(said["what"]), int(said["count"])),
    "passed": lambda said: Passed(float(said["seconds"])),
    "show": lambda _said: Show(),
    "shown": lambda said: Shown({str(name): str(text) for name, text in said["rules"].items()}),
}
