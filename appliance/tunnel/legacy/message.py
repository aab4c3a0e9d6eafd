"""gtun 2.0.2 on the wire: how bytes are cut into messages, and what the two JSON ones say. Pure: bytes in, values out.

    u16 length, big-endian, of what follows | u8 command | payload

The length counts the command, so it is at least 1 and a payload is at most 65534 bytes. A packet travels as it is, IPv4
only, and is never larger than 1500 bytes: the originals' TUN takes no more. A command that nobody knows is skipped, a
field of the JSON that nobody knows ignored, as both originals do. What we say is what theirs say, byte for byte.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Any, Final

from appliance.tunnel.frame import LocalProtocolError, RemoteProtocolError

_HEADER: Final = struct.Struct("!HB")
_LENGTH: Final = 2

LONGEST: Final = 0xFFFF
"""The greatest length there is."""

BEFORE_AUTH: Final = 4 << 10
"""The greatest length that is taken from a stranger."""

MTU: Final = 1500

VERSION: Final = "1.1.0"
LINUX: Final = 1

SUCCESS: Final = "authorize success"
WRONG_KEY: Final = "authorize fail"
NO_ADDRESS: Final = "not avaliable ip"  # the originals' spelling


class Command(IntEnum):
    """What a message is. The originals define 1 and 2 as well, for data, and never send them."""

    DATA = 0
    HEARTBEAT = 3
    HEARTBEAT_ANSWER = 4
    AUTHORIZE = 5
    AUTHORIZE_ANSWER = 6


def encode(command: Command, payload: bytes = b"") -> bytes:
    """Return a message as bytes."""
    if len(payload) >= LONGEST:
        raise LocalProtocolError("the payload is too long")
    return _HEADER.pack(len(payload) + 1, command) + payload


HEARTBEAT: Final = encode(Command.HEARTBEAT)
HEARTBEAT_ANSWER: Final = encode(Command.HEARTBEAT_ANSWER)


class Decoder:
    """Cuts a byte stream into messages. `limit`, the greatest length taken, is raised once the peer is known."""

    def __init__(self, limit: int = BEFORE_AUTH) -> None:
        self.limit = limit
        self._rest = b""

    def receive(self, data: bytes) -> list[tuple[int, memoryview]]:
        """Take bytes, return (command, payload) of each message that is whole; raise `RemoteProtocolError`."""
        view = memoryview(self._rest + data if self._rest else data)
        messages: list[tuple[int, memoryview]] = []
        start, end = 0, len(view)
        while end - start >= _LENGTH:
            length = view[start] << 8 | view[start + 1]
            if not 1 <= length <= self.limit:
                raise RemoteProtocolError(f"a message of length {length}; here it is 1 to {self.limit}")
            stop = start + _LENGTH + length
            if stop > end:
                break
            messages.append((view[start + _LENGTH], view[start + _HEADER.size : stop]))
            start = stop
        self._rest = bytes(view[start:])
        return messages


@dataclass(frozen=True, slots=True)
class Authorize:
    """What a client says first. Neither server looks at more than the key."""

    key: str = field(repr=False)
    version: str = VERSION
    os: int = LINUX

    def encode(self) -> bytes:
        """Return the message."""
        return _encode_json(Command.AUTHORIZE, {"version": self.version, "os": self.os, "key": self.key})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answers. The address is there if, and only if, the status is `SUCCESS`."""

    status: str
    address: IPv4Address | None = None
    gateway: IPv4Address | None = None
    nameservers: tuple[str, ...] = ()
    route_url: str = ""

    def encode(self) -> bytes:
        """Return the message; Go writes a list that was never made as null."""
        return _encode_json(
            Command.AUTHORIZE_ANSWER,
            {
                "status": self.status,
                "access_ip": str(self.address or ""),
                "nameservers": list(self.nameservers) or None,
                "gateway": str(self.gateway or ""),
                "route_script_url": self.route_url,
            },
        )


def read_authorize(command: int, payload: memoryview) -> Authorize:
    """Read a client's first message; raise `RemoteProtocolError` when it is another, or none."""
    match _object(command, Command.AUTHORIZE, payload):
        case {"key": str(key)}:
            return Authorize(key)
    raise RemoteProtocolError("an authorization without a key")


def read_answer(command: int, payload: memoryview) -> Answer:
    """Read a server's answer; raise `RemoteProtocolError`. Of the rest of a refusal nothing is believed."""
    fields = _object(command, Command.AUTHORIZE_ANSWER, payload)
    status = fields.get("status")
    if not isinstance(status, str):
        raise RemoteProtocolError("an answer without a status")
    if status != SUCCESS:
        return Answer(status)
    address = _address(fields.get("access_ip"))
    if address is None:
        raise RemoteProtocolError("a success without an address that a host can have")
    return Answer(status, address, _address(fields.get("gateway")))


def _encode_json(command: Command, fields: dict[str, object]) -> bytes:
    return encode(command, json.dumps(fields, separators=(",", ":")).encode())


def _object(command: int, wanted: Command, payload: memoryview) -> dict[str, Any]:
    if command != wanted:
        raise RemoteProtocolError(f"command {command} where {wanted} is due")
    try:
        found = json.loads(str(payload, "utf-8"))
    except (ValueError, RecursionError):
        raise RemoteProtocolError("an authorization that is not JSON") from None
    if not isinstance(found, dict):
        raise RemoteProtocolError("an authorization that is no JSON object")
    return found


def _address(text: object) -> IPv4Address | None:
    try:
        address = IPv4Address(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if address is None or address.is_multicast or address.is_loopback or address.is_link_local:
        return None
    return None if address.is_reserved or address.is_unspecified else address
