"""Routes as rtnetlink messages: what to send, and what a dump says. Pure.

A dump of what has not changed is the same bytes, so each message is decoded once. Layouts of uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import socket
from enum import IntEnum
from functools import lru_cache
from ipaddress import ip_network
from struct import Struct
from typing import Final, NamedTuple

from appliance.kernel.netlink import ACK, CREATE, EXCL, REPLACE, Message, attribute, attributes
from appliance.kernel.state import PROTOCOL, Network, Route, one, route_of

MAIN: Final = 254  # RT_TABLE_MAIN
UNICAST: Final = 1  # RTN_UNICAST
UNREACHABLE: Final = 7  # RTN_UNREACHABLE
_HEADER: Final = Struct("=BBBBBBBBI")  # family, lengths of dst and src, tos, table, protocol, scope, type, flags
_U32: Final = Struct("=I")
_CLONED: Final = 0x200  # RTM_F_CLONED: a cached exception, not a route


class _Command(IntEnum):
    """RTM_*."""

    NEWROUTE = 24
    DELROUTE = 25
    GETROUTE = 26


class _Attribute(IntEnum):
    """enum rtattr_type_t, RTA_*."""

    DST = 1
    OIF = 4
    GATEWAY = 5
    PRIORITY = 6
    MULTIPATH = 9
    TABLE = 15
    VIA = 18
    NH_ID = 30


class _Scope(IntEnum):
    """enum rt_scope_t, RT_SCOPE_*."""

    UNIVERSE = 0
    LINK = 253
    NOWHERE = 255


class Entry(NamedTuple):
    """One route of a dump. `direct`: it names one device and nothing behind it. `device`: its index, 0 for none."""

    destination: Network
    metric: int
    device: int
    kind: int
    protocol: int
    direct: bool


def dump(family: int) -> Message:
    """Return the question for a family's main table."""
    return Message(_Command.GETROUTE, 0, _HEADER.pack(family, 0, 0, 0, MAIN, 0, 0, 0, 0))


def add(route: Route, index: int, *, replace: bool = False) -> Message:
    """Return the message that installs a route, for the device with this index (0: none)."""
    return _message(_Command.NEWROUTE, ACK | CREATE | (REPLACE if replace else EXCL), route, index)


def remove(route: Route, index: int) -> Message:
    """Return the message that removes a route of ours, and no other."""
    return _message(_Command.DELROUTE, ACK, route, index)


def family_of(network: Network) -> int:
    """Return the address family of a network."""
    return socket.AF_INET if network.version == 4 else socket.AF_INET6


def _message(command: int, flags: int, route: Route, index: int) -> Message:
    network = route.destination
    kind = UNREACHABLE if route.device is None else UNICAST
    scope = (
        _Scope.NOWHERE
        if command == _Command.DELROUTE
        else _Scope.LINK
        if index and network.version == 4
        else _Scope.UNIVERSE
    )
    header = _HEADER.pack(family_of(network), network.prefixlen, 0, 0, MAIN, PROTOCOL, scope, kind, 0)
    body = (
        header
        + attribute(_Attribute.DST, network.network_address.packed)
        + attribute(_Attribute.PRIORITY, _U32.pack(route.metric))
    )
    return Message(command, flags, body + (attribute(_Attribute.OIF, _U32.pack(index)) if index else b""))


@lru_cache(maxsize=1 << 15)
def route(body: bytes, device: str | None) -> Route | None:
    """Return the route as we would have written it, None where it is not one that we write. `device`: by its index."""
    found = entry(body)
    if found is None or found.protocol != PROTOCOL:
        return None
    if found.kind == UNREACHABLE:
        return route_of(found.destination, None, found.metric)
    if found.kind != UNICAST or device is None or not found.direct:
        return None
    return route_of(found.destination, device, found.metric)


@lru_cache(maxsize=1 << 15)
def entry(body: bytes) -> Entry | None:
    """Return what a message of a dump says, None where it is not of the main table."""
    family, length, _, _, table, protocol, _, kind, flags = _HEADER.unpack_from(body)
    found = dict(attributes(body, _HEADER.size))
    if (_U32.unpack(found[_Attribute.TABLE])[0] if _Attribute.TABLE in found else table) != MAIN or flags & _CLONED:
        return None
    address = found.get(_Attribute.DST) or bytes(4 if family == socket.AF_INET else 16)
    metric, index = (
        _U32.unpack(found[kind])[0] if kind in found else 0 for kind in (_Attribute.PRIORITY, _Attribute.OIF)
    )
    direct = bool(index) and not found.keys() & {
        _Attribute.GATEWAY,
        _Attribute.MULTIPATH,
        _Attribute.VIA,
        _Attribute.NH_ID,
    }
    return Entry(one(ip_network((address, length))), metric, index, kind, protocol, direct)
