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

from enum import Enum
from typing import Final

from . import frame, messages
from .messages import Capability, Event, Hello, Refusal, Rekey, Rekeyed, Switch, Welcome


class Role(Enum):
    """Which end this is."""

    CLIENT = "client"
    SERVER = "server"


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
        self._say(messages.write(hello))
        self._offered = hello.capabilities
        self._decoder.limit = frame.AFTER_AUTH  # the server's key was checked before this

    def welcome(self, welcome: Welcome) -> None:
        """Let the client in."""
        self._require(Role.SERVER, State.ASKED)
        self.state = State.OPEN
        self.capabilities = welcome.capabilities & self._offered
        self._decoder.limit = frame.AFTER_AUTH
        self._say(messages.write(welcome))

    def rekey(self, rekey: Rekey) -> None:
        """Ask for the next epoch: `rekeyed` answers."""
        self._say_in_epochs(Role.CLIENT, rekey)

    def rekeyed(self, rekeyed: Rekeyed) -> None:
        """Give the client the other part of the next epoch, once what it seals then can be opened."""
        self._say_in_epochs(Role.SERVER, rekeyed)

    def switch(self, switch: Switch) -> None:
        """Tell the server that what it seals in the new epoch can be opened here."""
        self._say_in_epochs(Role.CLIENT, switch)

    def refuse(self, code: Refusal, reason: str) -> None:
        """Say no, with a reason for people that tells nothing about other clients."""
        self._require(Role.SERVER, State.ASKED)
        self.state = State.CLOSED
        self._say(messages.farewell("refused", code, reason))

    def goodbye(self, code: Refusal, reason: str) -> None:
        """End an open session."""
        if self.state is State.OPEN:
            self.state = State.CLOSED
            self._say(messages.farewell("bye", code, reason))

    def _step(self, message: frame.Message) -> Event:
        kind = message["type"]
        following = TRANSITIONS.get((self.role, self.state, kind))
        if following is None:
            raise frame.RemoteProtocolError(f"{kind[:20]!r} came in state {self.state.value}")
        if kind in _NEEDS and _NEEDS[kind] not in self.capabilities:
            raise frame.RemoteProtocolError(f"{kind!r} came, of which not both ends said to be capable")
        event = messages.read(message)
        if isinstance(event, Hello):
            self._offered = event.capabilities
        elif isinstance(event, Welcome):
            self.capabilities = event.capabilities & self._offered
        self.state = following
        return event

    def _say_in_epochs(self, role: Role, event: Rekey | Rekeyed | Switch) -> None:
        self._require(role, State.OPEN)
        if Capability.REKEY not in self.capabilities:
            raise frame.LocalProtocolError("the peer is not capable of making keys anew")
        self._say(messages.write(event))

    def _say(self, message: frame.Message) -> None:
        self._outgoing += frame.encode(message)

    def _require(self, role: Role, state: State) -> None:
        if (self.role, self.state) != (role, state):
            raise frame.LocalProtocolError(f"a {self.role.value} in state {self.state.value} cannot say that")
