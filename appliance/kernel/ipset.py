"""Sets of prefixes for iptables: the kernel's ipset, type hash:net, over netlink. The ipset program is not needed.

A change of several sets is not one transaction, and need not be: a prefix that changes its set is added to the new one
before it is taken from the old (iptables.py). Layouts of uapi/linux/netfilter/ipset/ip_set.h.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable, Iterator
from enum import IntEnum
from functools import lru_cache
from itertools import islice
from typing import Final

from appliance.kernel.firewall import FirewallError
from appliance.kernel.netlink import (
    ACK,
    CREATE,
    EXCL,
    NETFILTER,
    Interrupted,
    Message,
    Talk,
    attribute,
    attributes,
    nested,
)
from appliance.kernel.prefixes import Prefix
from appliance.kernel.rules import MARK, version_of

_SUBSYSTEM: Final = 6 << 8  # NFNL_SUBSYS_IPSET
_NET_BYTEORDER: Final = 0x4000
_NAMES_ONLY: Final = 1 << 1  # IPSET_FLAG_LIST_SETNAME
_TYPE: Final = b"hash:net\0"
_MOST: Final = 1 << 18  # prefixes in a set
_BATCH: Final = 1000  # prefixes in a message, which holds 64 KiB
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_WIDTHS: Final = {4: 4, 6: 16}
_TRIES: Final = 5


class _Command(IntEnum):
    """enum ipset_cmd, IPSET_CMD_*."""

    CREATE = 2
    DESTROY = 3
    LIST = 7
    ADD = 9
    DEL = 10
    HEADER = 12
    GET_BYNAME = 14


class _Attribute(IntEnum):
    """IPSET_ATTR_* at the level of a command."""

    PROTOCOL = 1
    SETNAME = 2
    TYPENAME = 3
    REVISION = 4
    FAMILY = 5
    FLAGS = 6
    DATA = 7
    ADT = 8
    LINENO = 9
    INDEX = 11


class _Data(IntEnum):
    """IPSET_ATTR_* within DATA."""

    IP = 1
    CIDR = 3
    MAXELEM = 19


class _Address(IntEnum):
    """IPSET_ATTR_IPADDR_* within IP."""

    IPV4 = 1
    IPV6 = 2


def names(version: int) -> frozenset[str]:
    """Return the names of our sets for this IP version."""
    with _talk("list the sets") as talk:
        found = _dump(talk, attribute(_Attribute.FLAGS | _NET_BYTEORDER, _NAMES_ONLY.to_bytes(4, "big")))
    texts = (
        dict(attributes(body, 4)).get(_Attribute.SETNAME, b"").rstrip(b"\0").decode("ascii", "replace")
        for body in found
    )
    return frozenset(text for text in texts if text.startswith(f"{MARK}{version}-"))


def index(name: str) -> int | None:
    """Return the number by which rules refer to this set; None where there is none, or it is not of our type."""
    with _talk(f"look up the set {name}") as talk:
        try:
            header = dict(attributes(talk.ask(_message(_Command.HEADER, 0, _name(name))), 4))
            if header.get(_Attribute.TYPENAME) != _TYPE or header.get(_Attribute.FAMILY) != bytes(
                [_FAMILIES[version_of(name)]]
            ):
                return None
            found = dict(attributes(talk.ask(_message(_Command.GET_BYNAME, 0, _name(name))), 4))
        except FileNotFoundError:
            return None
    return int.from_bytes(found[_Attribute.INDEX], "big")


def members(name: str) -> frozenset[Prefix]:
    """Return what is in a set. A member with more to it than an address and a length has a negative length."""
    found: list[Prefix] = []
    with _talk(f"read the set {name}") as talk:
        for body in _dump(talk, _name(name)):
            for kind, value in attributes(body, 4):
                if kind == _Attribute.ADT:
                    found += [_member(element) for _, element in attributes(value)]
    return frozenset(found)


def create(name: str) -> None:
    """Make an empty set; one of this name that is of another type makes way, unless a rule refers to it."""
    family = attribute(_Attribute.FAMILY, bytes([_FAMILIES[version_of(name)]]))
    body = _name(name) + attribute(_Attribute.TYPENAME, _TYPE) + attribute(_Attribute.REVISION, b"\0") + family
    body += nested(_Attribute.DATA, [attribute(_Data.MAXELEM | _NET_BYTEORDER, _MOST.to_bytes(4, "big"))])
    with _talk(f"create the set {name}") as talk:
        try:
            talk.do(_message(_Command.CREATE, ACK | CREATE | EXCL, body))
        except FileExistsError:
            talk.do(_message(_Command.DESTROY, ACK, _name(name)))
            talk.do(_message(_Command.CREATE, ACK | CREATE | EXCL, body))


def add(name: str, prefixes: Iterable[Prefix]) -> None:
    """Put prefixes into a set; what is there already is no error."""
    _change(_Command.ADD, name, prefixes)


def remove(name: str, prefixes: Iterable[Prefix]) -> None:
    """Take prefixes out of a set; what is not there is no error."""
    _change(_Command.DEL, name, prefixes)


def destroy(name: str) -> None:
    """Delete a set to which no rule refers."""
    with _talk(f"destroy the set {name}") as talk, contextlib.suppress(FileNotFoundError):
        talk.do(_message(_Command.DESTROY, ACK, _name(name)))


def _change(command: int, name: str, prefixes: Iterable[Prefix]) -> None:
    width, rest = _WIDTHS[version_of(name)], iter(prefixes)
    with _talk(f"change the set {name}") as talk:
        while batch := list(islice(rest, _BATCH)):
            elements = nested(_Attribute.ADT, (_element(prefix, width) for prefix in batch))
            line = attribute(_Attribute.LINENO | _NET_BYTEORDER, bytes(4))
            talk.do(_message(command, ACK, _name(name) + elements + line))


def _element(prefix: Prefix, width: int) -> bytes:
    address, length = prefix
    kind = (_Address.IPV4 if width == _WIDTHS[4] else _Address.IPV6) | _NET_BYTEORDER
    ip = nested(_Data.IP, [attribute(kind, address.to_bytes(width, "big"))])
    return nested(_Attribute.DATA, [ip, attribute(_Data.CIDR, bytes([length]))])


@lru_cache(maxsize=1 << 16)
def _member(element: bytes) -> Prefix:
    parts = dict(attributes(element))
    address = next((value for _, value in attributes(parts.get(_Data.IP, b""))), b"")
    length = (parts.get(_Data.CIDR) or bytes([len(address) * 8]))[0]
    return int.from_bytes(address, "big"), length if parts.keys() <= {_Data.IP, _Data.CIDR} else -1 - length


def _name(name: str) -> bytes:
    return attribute(_Attribute.SETNAME, name.encode("ascii") + b"\0")


def _message(command: int, flags: int, body: bytes) -> Message:
    return Message(_SUBSYSTEM | command, flags, bytes(4) + attribute(_Attribute.PROTOCOL, b"\7") + body)


def _dump(talk: Talk, body: bytes) -> list[bytes]:
    for _ in range(_TRIES):
        try:
            return talk.dump(_message(_Command.LIST, 0, body))
        except FileNotFoundError:
            return []
        except Interrupted:
            continue
    raise OSError(errno.EAGAIN, "the sets change too fast to be read")


@contextlib.contextmanager
def _talk(what: str) -> Iterator[Talk]:
    try:
        with Talk(NETFILTER) as talk:
            yield talk
    except OSError as failure:
        raise FirewallError(f"cannot {what}: {failure.strerror}{_hint(failure)}") from None


def _hint(failure: OSError) -> str:
    if failure.errno == errno.EBUSY:
        return ": a rule refers to it"
    return ": this needs CAP_NET_ADMIN" if failure.errno == errno.EPERM else ""
