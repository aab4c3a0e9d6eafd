"""The TOML files of gtun and gtund, as frozen values.

A section or key that we do not know is an error that names it, as is a value of the wrong kind. Whatever is wrong with
a file is a `ConfigError`: the programs then exit in the way that keeps systemd from starting them over and over.
"""

from __future__ import annotations

import base64
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from ipaddress import IPv4Address, IPv4Network, IPv6Interface, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Final, TypeVar

from .lease import objection
from .messages import MOST_CONNECTIONS, Mode
from .token import NAME

T = TypeVar("T")

_SMALLEST_MTU: Final = 1280  # RFC 8200, section 5: below it the kernel does no IPv6
_LARGEST_MTU: Final = 65_535

# An IPv6 address without brackets is refused: where it ends and the port begins, nobody can tell. "*" is `legacy`'s.
_PLACE: Final = re.compile(r"(\[(?P<address>[^\[\]]+)\]|(?P<name>[\w.*-]+)):(?P<port>[0-9]{1,5})")

Network = IPv4Network | IPv6Network

# The addresses of gtun 2.0.2, so that what people know stays true.
_SUBNET: Final = IPv4Network("100.64.240.0/24")
_GATEWAY: Final = IPv4Address("100.64.240.1")
_FIRST: Final = IPv4Address("100.64.240.50")


class ConfigError(Exception):
    """The file cannot be used; the message names the file and the key, and says what to write."""


class BadValue(ValueError):
    """A value is not of its kind; the message shows it, `mend` completes "write ..." and shows nothing secret."""

    def __init__(self, value: object, mend: str, why: str = "will not do") -> None:
        super().__init__(f"{value!r} {why}: write {mend}")
        self.mend = mend


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """One link, as `nexthop link join` writes it. `server` is host:port; `key` and `join` are secret.

    `channel`: what goes by TCP and what by UDP; `connections`: how many TCP connections the stream channel spreads its
    flows over; `gso`: whether the kernel may cut large sends into datagrams (UDP_SEGMENT). Where it refuses to, it is
    not asked again; without, each datagram is a call, for a device that cuts them wrongly.
    Keys are made anew after `rekey_seconds`, or when one has sealed `rekey_records`.
    """

    name: str
    device: str
    server: str
    pin: str
    client: str
    key: str = field(repr=False)
    join: str = field(default="", repr=False)
    connections: int = 4
    channel: Mode = Mode.HYBRID
    gso: bool = True
    rekey_seconds: int = 3600
    rekey_records: int = 1 << 32


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where gtund listens, and what it tells clients to connect to."""

    listen: str = "0.0.0.0:9443"
    public: str = ""
    state: str = "/var/lib/gtund"
    run: str = "/run/gtund"


@dataclass(frozen=True, slots=True)
class TunnelConfig:
    """The tunnel's own addresses, what lies behind gtund, whether it masquerades towards it; `gso` as for a link.

    `subnet6` is the tunnel's IPv6 block. Without it, gtund takes one that follows from its own key, but only where it
    serves IPv6.
    """

    serve: tuple[Network, ...]
    subnet: IPv4Network = _SUBNET
    gateway: IPv4Address = _GATEWAY
    first: IPv4Address = _FIRST
    snat: bool = True
    mtu: int = 1500
    gso: bool = True
    subnet6: IPv6Network | None = None

    def six(self, address: IPv4Address) -> IPv6Interface | None:
        """Return the IPv6 address that goes with an IPv4 one of the subnet: the one as far into its block, if any."""
        if self.subnet6 is None:
            return None
        number = int(address) - int(self.subnet.network_address)
        return IPv6Interface((self.subnet6[number], self.subnet6.prefixlen))


@dataclass(frozen=True, slots=True)
class GtundConfig:
    """gtund.toml."""

    server: ServerConfig
    tunnel: TunnelConfig


def read_link(path: Path) -> LinkConfig:
    """Read a link's file; raise `ConfigError`."""
    return link_from(_text(path), path)


def link_from(text: str, path: Path) -> LinkConfig:
    """Return the link of which this is the text of the file; raise `ConfigError`."""
    link = _section(path, _sections(text, path, "link"), "link", LinkConfig)
    if not NAME.fullmatch(link.name):
        raise ConfigError(f"{path}: [link] name = {link.name!r}: 1 to 11 of a-z, 0-9 and -, a letter first")
    host_and_port(link.server, f"{path}: [link] server")
    if not 1 <= link.connections <= MOST_CONNECTIONS:
        raise ConfigError(f"{path}: [link] connections = {link.connections}: 1 to {MOST_CONNECTIONS}")
    for key, value in (("rekey_seconds", link.rekey_seconds), ("rekey_records", link.rekey_records)):
        if value < 1:
            raise ConfigError(f"{path}: [link] {key} = {value}: 1 or more")
    if not link.pin.isascii():
        raise ConfigError(f"{path}: [link] pin = {link.pin!r} is not base64: join the link anew")
    for key, text in (("key", link.key), ("join", link.join)):
        try:
            base64.b64decode(text, validate=True)
        except ValueError:
            raise ConfigError(f"{path}: [link] {key} is not base64: join the link anew") from None
    return link


def read_gtund(path: Path) -> GtundConfig:
    """Read gtund.toml; raise `ConfigError`."""
    return gtund_from(_text(path), path)


def gtund_from(text: str, path: Path) -> GtundConfig:
    """Return what this text of a gtund.toml says; raise `ConfigError`."""
    tables = _sections(text, path, "server", "tunnel")
    server = _section(path, tables, "server", ServerConfig)
    host_and_port(server.listen, f"{path}: [server] listen")
    if server.public:
        host_and_port(server.public, f"{path}: [server] public")
    for key, place, example in (("state", server.state, "/var/lib/gtund"), ("run", server.run, "/run/gtund")):
        if not place.startswith("/"):
            raise ConfigError(f'{path}: [server] {key} = {place!r}: write an absolute path, such as "{example}"')
    tunnel = _section(path, tables, "tunnel", TunnelConfig)
    if not tunnel.serve:
        raise ConfigError(f'{path}: [tunnel] serve is empty: name what lies behind gtund, such as ["10.244.0.0/16"]')
    for key, subnet in (("subnet", tunnel.subnet), ("subnet6", tunnel.subnet6)):
        if subnet is not None and (why := objection(subnet)) is not None:
            raise ConfigError(f"{path}: [tunnel] {key} = {subnet}, in which no client takes an address: {why}")
    if tunnel.gateway not in tunnel.subnet or tunnel.first not in tunnel.subnet:
        raise ConfigError(f"{path}: [tunnel] gateway and first must lie in subnet = {tunnel.subnet}")
    if tunnel.subnet6 is not None and tunnel.subnet6.num_addresses < tunnel.subnet.num_addresses:
        raise ConfigError(f"{path}: [tunnel] subnet6 = {tunnel.subnet6} has fewer addresses than subnet")
    if not _SMALLEST_MTU <= tunnel.mtu <= _LARGEST_MTU:
        raise ConfigError(f"{path}: [tunnel] mtu = {tunnel.mtu}: {_SMALLEST_MTU} to {_LARGEST_MTU}")
    return GtundConfig(server, tunnel)


def host_and_port(text: str, where: str) -> tuple[str, int]:
    """Split ``host:port`` (an IPv6 address in brackets); raise `ConfigError` naming `where`."""
    place = _PLACE.fullmatch(text)
    if place is None or not 0 < int(place["port"]) < 1 << 16 or not _is_host(place):
        raise ConfigError(f'{where} = {text!r}: write host:port, such as "203.0.113.10:9443" or "[2001:db8::1]:9443"')
    return place["address"] or place["name"], int(place["port"])


def _is_host(place: re.Match[str]) -> bool:
    try:
        return place["name"] is not None or bool(ip_address(place["address"]))
    except ValueError:
        return False


def load(path: Path) -> dict[str, Any]:
    """Return the file's tables; raise `ConfigError`."""
    return _tables(_text(path), path)


def read_value(kind: str, given: object) -> Any:
    """Return what was given as a value of this kind, one of those below; raise `BadValue`."""
    read, mend = _KINDS[kind]
    try:
        return read(given)
    except BadValue:
        raise
    except (TypeError, ValueError):
        raise BadValue(given, mend) from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} is not there: write it, or name another file") from None
    except PermissionError:
        raise ConfigError(f"{path} cannot be read by this user: run this as root") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}): name a TOML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 at byte {error.start}: save it in that encoding") from None


def _tables(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number too long, lists too deep: no TOMLDecodeError, but no TOML
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _sections(text: str, path: Path, *known: str) -> dict[str, Any]:
    tables = _tables(text, path)
    for name, table in tables.items():
        if name not in known:
            below = " or ".join(f"[{section}]" for section in known)
            raise ConfigError(f"{path}: {name!r} is not known here: write each key below {below}")
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name!r} is a section: write [{name}], once, on a line of its own")
    return tables


def _section(path: Path, tables: dict[str, Any], section: str, form: type[T]) -> T:
    known = {item.name: item for item in fields(form)}  # type: ignore[arg-type]
    given = tables.get(section, {})
    for key in given:
        if key not in known:
            raise ConfigError(f"{path}: [{section}] {key} is not known; known are {', '.join(sorted(known))}")
    values = {}
    for key, item in known.items():
        kind = str(item.type)
        if key not in given:
            if item.default is MISSING:
                raise ConfigError(f"{path}: [{section}] {key} is missing: write {_KINDS[kind][1]}")
            continue
        try:
            values[key] = read_value(kind, given[key])
        except BadValue as bad:
            says = bad if item.repr else f"write {bad.mend}"  # what is not shown is secret
            raise ConfigError(f"{path}: [{section}] {key}: {says}") from None
    return form(**values)


def _exactly(kind: type[T]) -> Callable[[Any], T]:
    def read(given: Any) -> T:
        if type(given) is not kind:  # to Python, True is an int, and 5 an address
            raise TypeError
        return given

    return read


def _text_of(form: Callable[[str], T]) -> Callable[[Any], T]:
    return lambda given: form(_exactly(str)(given))


def _network(form: Callable[..., T]) -> Callable[[Any], T]:
    def read(text: str) -> T:
        try:
            return form(text)
        except ValueError:
            near = form(text, strict=False)  # raises again where it is no network at all
        raise BadValue(text, f'"{near}"', "has host bits set")

    return _text_of(read)


def _networks(given: Any) -> tuple[Network, ...]:
    return tuple(read_value("Network", each) for each in _exactly(list)(given))


# By the annotation of the field: what reads it, and what completes "write ..." where that cannot.
_KINDS: Final[Mapping[str, tuple[Callable[[Any], Any], str]]] = {
    "str": (_exactly(str), 'a text in quotes, such as "abc"'),
    "bool": (_exactly(bool), "true or false, without quotes"),
    "int": (_exactly(int), "a whole number, without quotes"),
    "Mode": (Mode, '"hybrid", "stream" or "datagram"'),
    "Network": (_network(ip_network), 'a CIDR, such as "10.244.0.0/16"'),
    "IPv4Network": (_network(IPv4Network), 'an IPv4 CIDR, such as "100.64.240.0/24"'),
    "IPv4Address": (_text_of(IPv4Address), 'an IPv4 address in quotes, such as "100.64.240.1"'),
    "IPv6Network | None": (_network(IPv6Network), 'an IPv6 CIDR, such as "fd00:64:240::/64"'),
    "tuple[Network, ...]": (_networks, 'a list of CIDRs, such as ["10.244.0.0/16"]'),
}
