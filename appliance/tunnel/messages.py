"""What the two ends of a control channel can say to each other: as values here, as JSON on the wire. Pure.

A message that lacks something, or says what cannot be, is the peer's error; what is in it beyond what we know is
overlooked, so that a newer end can say more. `session` has the rules of who may say what, and when.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface
from typing import Final

from . import frame, keys

VERSIONS: Final = (1,)

MOST_CONNECTIONS: Final = 16
"""Data connections of one session at a time."""


class Mode(Enum):
    """What goes by which channel: see `channels`. The values are on the wire and in link files."""

    STREAM = "stream"
    DATAGRAM = "datagram"
    HYBRID = "hybrid"


class Capability(Enum):
    """What an end can do beyond the version's beginnings. The values are on the wire.

    REKEY: a session's keys are made anew, in epochs.
    """

    REKEY = "rekey"


CAPABILITIES: Final = frozenset(Capability)


class Refusal(Enum):
    """Why a server says no or goodbye. The values are on the wire."""

    DENIED = "denied"
    VERSION = "version"
    REPLACED = "replaced"
    REMOVED = "removed"
    STOPPING = "stopping"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Hello:
    """A client asks to come in. `key` is its own secret; `join` the token's, while it has not been spent.

    `connections`: how many data connections it will keep; `mode`: what it wants to go by which channel (`Mode`).
    """

    versions: tuple[int, ...]
    name: str
    key: bytes = field(repr=False)
    join: bytes = field(repr=False)
    random: bytes = field(repr=False)
    connections: int = 1
    mode: Mode = Mode.HYBRID
    capabilities: frozenset[Capability] = frozenset()


@dataclass(frozen=True, slots=True)
class Welcome:
    """The server lets it in. `address` carries the tunnel subnet's prefix length; `mtu` is in bytes.

    `address6` is None from a server without IPv6 in the tunnel.
    """

    version: int
    session_id: bytes
    random: bytes = field(repr=False)
    address: IPv4Interface
    gateway: IPv4Address
    mtu: int
    address6: IPv6Interface | None = None
    capabilities: frozenset[Capability] = frozenset()


@dataclass(frozen=True, slots=True)
class Rekey:
    """The client wants the session's keys made anew; its part of what `epoch` is made from."""

    epoch: int
    random: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """The server's part. It opens what is sealed in `epoch` from now on."""

    epoch: int
    random: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Switch:
    """The client opens what is sealed in `epoch` from now on, and seals so itself."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The conversation is over: refused, or ended later."""

    code: str
    reason: str


Event = Hello | Welcome | Rekey | Rekeyed | Switch | Goodbye


def choose_version(offered: tuple[int, ...]) -> int | None:
    """Return the greatest version that both ends speak."""
    return max(set(offered) & set(VERSIONS), default=None)


def write(event: Hello | Welcome | Rekey | Rekeyed | Switch) -> frame.Message:
    """Return the message that says this."""
    match event:
        case Hello():
            return {
                "type": "hello",
                "versions": list(event.versions),
                "name": event.name,
                "key": _text(event.key),
                "join": _text(event.join),
                "random": _text(event.random),
                "connections": event.connections,
                "mode": event.mode.value,
                "capabilities": _names(event.capabilities),
            }
        case Welcome():
            return {
                "type": "welcome",
                "version": event.version,
                "session": event.session_id.hex(),
                "random": _text(event.random),
                "address": str(event.address),
                "gateway": str(event.gateway),
                "mtu": event.mtu,
                "capabilities": _names(event.capabilities),
                **({"address6": str(event.address6)} if event.address6 else {}),
            }
        case Rekey() | Rekeyed():
            return {"type": type(event).__name__.lower(), "epoch": event.epoch, "random": _text(event.random)}
        case Switch():
            return {"type": "switch", "epoch": event.epoch}


def farewell(kind: str, code: Refusal, reason: str) -> frame.Message:
    """Return the message that ends a conversation: `refused` before it is open, `bye` later."""
    return {"type": kind, "code": code.value, "reason": reason}


def read(message: frame.Message) -> Event:
    """Return what a message says; raise `RemoteProtocolError` for a malformed one."""
    try:
        return _READERS[message["type"]](message)
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError):
        raise frame.RemoteProtocolError(f"a malformed {message['type']!r}") from None


def _read_hello(message: frame.Message) -> Hello:
    name, versions = message["name"], message["versions"]
    if not isinstance(name, str) or not all(isinstance(version, int) for version in versions):
        raise TypeError
    random, connections = _bytes(message["random"]), message["connections"]
    if len(random) != keys.RANDOM or type(connections) is not int or not 1 <= connections <= MOST_CONNECTIONS:
        raise ValueError
    key, join, mode = _bytes(message["key"]), _bytes(message["join"]), Mode(message["mode"])
    able = _capabilities(message)
    return Hello(tuple(versions), name, key, join, random, connections, mode, capabilities=able)


def _read_welcome(message: frame.Message) -> Welcome:
    session_id, random, mtu = bytes.fromhex(message["session"]), _bytes(message["random"]), message["mtu"]
    if len(session_id) != keys.SESSION_ID or len(random) != keys.RANDOM:
        raise ValueError
    if type(mtu) is not int or not 576 <= mtu <= 65_535:
        raise ValueError
    address, gateway = IPv4Interface(message["address"]), IPv4Address(message["gateway"])
    address6 = IPv6Interface(message["address6"]) if "address6" in message else None
    able = _capabilities(message)
    return Welcome(int(message["version"]), session_id, random, address, gateway, mtu, address6, capabilities=able)


def _read_rekey(message: frame.Message) -> Rekey:
    return Rekey(*_epoch_and_random(message))


def _read_rekeyed(message: frame.Message) -> Rekeyed:
    return Rekeyed(*_epoch_and_random(message))


def _read_switch(message: frame.Message) -> Switch:
    return Switch(int(message["epoch"]))


def _epoch_and_random(message: frame.Message) -> tuple[int, bytes]:
    epoch, random = int(message["epoch"]), _bytes(message["random"])
    if not 0 < epoch <= keys.LAST_EPOCH or len(random) != keys.RANDOM:
        raise ValueError
    return epoch, random


def _read_goodbye(message: frame.Message) -> Goodbye:
    return Goodbye(str(message["code"])[:40], str(message["reason"])[:400])


_READERS: Final[dict[str, Callable[[frame.Message], Event]]] = {
    "hello": _read_hello,
    "welcome": _read_welcome,
    "rekey": _read_rekey,
    "rekeyed": _read_rekeyed,
    "switch": _read_switch,
    "refused": _read_goodbye,
    "bye": _read_goodbye,
}


def _names(capabilities: frozenset[Capability]) -> list[str]:
    return sorted(each.value for each in capabilities)


def _capabilities(message: frame.Message) -> frozenset[Capability]:
    """Return what we know of what the peer can do; an older peer says nothing, a newer one more than we know."""
    said = message.get("capabilities", [])
    return frozenset(each for each in Capability if each.value in said)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
