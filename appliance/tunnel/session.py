"""The control channel's conversation, seen from either end. Pure: bytes in, events out, bytes to send.

Everything that affects the state lives in `TRANSITIONS`; a message that has no line there is the peer's error.

    client                         server
    HELLO_SENT   -- hello -->      AWAIT_HELLO
                                   ASKED          somebody decides: `welcome` or `refuse`
    OPEN         <-- welcome --    OPEN
    CLOSED       <-- refused --    CLOSED
    OPEN         -- rekey -->      OPEN           only where both ends are capable of it; see `Capability`
    OPEN         <-- rekeyed --    OPEN           what the client sends may be sealed with the next epoch's keys
    OPEN         -- switch -->     OPEN           so may what the server sends
    CLOSED       <-- bye -->       CLOSED         with a code, by either end, at any time after

It runs inside TLS, and the client has checked the server's key before its first byte. The client names the versions
that it speaks, the server picks the greatest that it knows too, so a newer end talks to an older one. Within a version,
each end names its capabilities, and what either lacks or does not know is not used.
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


class Role(Enum):
    """Which end this is."""

    CLIENT = "client"
    SERVER = "server"


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


class State(Enum):
    """Where the conversation stands."""

    HELLO_SENT = "hello-sent"
    AWAIT_HELLO = "await-hello"
    ASKED = "asked"
    OPEN = "open"
    CLOSED = "closed"


TRANSITIONS: Final = {
    (Role.SERVER, State.AWAIT_HELLO, "hello"): State.ASKED,
    (Role.CLIENT, State.HELLO_SENT, "welcome"): State.OPEN,
    (Role.CLIENT, State.HELLO_SENT, "refused"): State.CLOSED,
    (Role.SERVER, State.OPEN, "rekey"): State.OPEN,
    (Role.CLIENT, State.OPEN, "rekeyed"): State.OPEN,
    (Role.SERVER, State.OPEN, "switch"): State.OPEN,
    (Role.CLIENT, State.OPEN, "bye"): State.CLOSED,
    (Role.SERVER, State.OPEN, "bye"): State.CLOSED,
}
"""(who receives, where it stands, what comes) -> where it stands then."""

_NEEDS: Final = {"rekey": Capability.REKEY, "rekeyed": Capability.REKEY, "switch": Capability.REKEY}
"""What comes -> what both ends must be capable of."""


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


class Conversation:
    """One end of one control channel."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.state = State.AWAIT_HELLO if role is Role.SERVER else State.HELLO_SENT
        self.capabilities: frozenset[Capability] = frozenset()
        self._offered: frozenset[Capability] = frozenset()
        self._decoder = frame.Decoder()
        self._outgoing = b""

    def receive(self, data: bytes) -> list[Event]:
        """Take what came; raise `RemoteProtocolError` when the peer may not say that, or not now."""
        return [self._step(message) for message in self._decoder.receive(data)]

    def to_send(self) -> bytes:
        """Return what is to be sent now."""
        data, self._outgoing = self._outgoing, b""
        return data

    def hello(self, hello: Hello) -> None:
        """Ask to come in: a client's first word."""
        self._require(Role.CLIENT, State.HELLO_SENT)
        self._say(
            "hello",
            versions=list(hello.versions),
            name=hello.name,
            key=_text(hello.key),
            join=_text(hello.join),
            random=_text(hello.random),
            connections=hello.connections,
            mode=hello.mode.value,
            capabilities=sorted(each.value for each in hello.capabilities),
        )
        self._offered = hello.capabilities
        self._decoder.limit = frame.AFTER_AUTH  # the server's key was checked before this

    def welcome(self, welcome: Welcome) -> None:
        """Let the client in."""
        self._require(Role.SERVER, State.ASKED)
        self.state = State.OPEN
        self.capabilities = welcome.capabilities & self._offered
        self._decoder.limit = frame.AFTER_AUTH
        self._say(
            "welcome",
            version=welcome.version,
            session=welcome.session_id.hex(),
            random=_text(welcome.random),
            address=str(welcome.address),
            gateway=str(welcome.gateway),
            mtu=welcome.mtu,
            capabilities=sorted(each.value for each in welcome.capabilities),
            **({"address6": str(welcome.address6)} if welcome.address6 else {}),
        )

    def rekey(self, rekey: Rekey) -> None:
        """Ask for the next epoch: `rekeyed` answers."""
        self._say_in_epochs(Role.CLIENT, "rekey", epoch=rekey.epoch, random=_text(rekey.random))

    def rekeyed(self, rekeyed: Rekeyed) -> None:
        """Give the client the other part of the next epoch, once what it seals then can be opened."""
        self._say_in_epochs(Role.SERVER, "rekeyed", epoch=rekeyed.epoch, random=_text(rekeyed.random))

    def switch(self, switch: Switch) -> None:
        """Tell the server that what it seals in the new epoch can be opened here."""
        self._say_in_epochs(Role.CLIENT, "switch", epoch=switch.epoch)

    def refuse(self, code: Refusal, reason: str) -> None:
        """Say no, with a reason for people that tells nothing about other clients."""
        self._require(Role.SERVER, State.ASKED)
        self.state = State.CLOSED
        self._say("refused", code=code.value, reason=reason)

    def goodbye(self, code: Refusal, reason: str) -> None:
        """End an open session."""
        if self.state is State.OPEN:
            self.state = State.CLOSED
            self._say("bye", code=code.value, reason=reason)

    def _step(self, message: frame.Message) -> Event:
        kind = message["type"]
        following = TRANSITIONS.get((self.role, self.state, kind))
        if following is None:
            raise frame.RemoteProtocolError(f"{kind[:20]!r} came in state {self.state.value}")
        if kind in _NEEDS and _NEEDS[kind] not in self.capabilities:
            raise frame.RemoteProtocolError(f"{kind!r} came, of which not both ends said to be capable")
        event = _read(message)
        if isinstance(event, Hello):
            self._offered = event.capabilities
        elif isinstance(event, Welcome):
            self.capabilities = event.capabilities & self._offered
        self.state = following
        return event

    def _say_in_epochs(self, role: Role, kind: str, **fields: object) -> None:
        self._require(role, State.OPEN)
        if Capability.REKEY not in self.capabilities:
            raise frame.LocalProtocolError("the peer is not capable of making keys anew")
        self._say(kind, **fields)

    def _say(self, kind: str, **fields: object) -> None:
        self._outgoing += frame.encode({"type": kind, **fields})

    def _require(self, role: Role, state: State) -> None:
        if (self.role, self.state) != (role, state):
            raise frame.LocalProtocolError(f"a {self.role.value} in state {self.state.value} cannot say that")


def choose_version(offered: tuple[int, ...]) -> int | None:
    """Return the greatest version that both ends speak."""
    return max(set(offered) & set(VERSIONS), default=None)


def _read(message: frame.Message) -> Event:
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


def _capabilities(message: frame.Message) -> frozenset[Capability]:
    """Return what we know of what the peer can do; an older peer says nothing, a newer one more than we know."""
    said = message.get("capabilities", [])
    return frozenset(each for each in Capability if each.value in said)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
