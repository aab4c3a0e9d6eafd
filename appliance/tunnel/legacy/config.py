"""The originals' TOML files, as they are in the field: what we have no use for is let be, a missing key is not.

    client   [client] server="host:9623" auth="..."                          [log] level path days
    server   name   [server] listen=":9623" auth_key="..." nameservers route_url   [dhcp] cidr gateway   [log] ...

A key that gtun 2.0.2 does not have either is named in a warning, and no error: Go's reader passes over those in
silence, so there are such files. Without a key the originals let anyone in; ours do not start.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any, Final

from appliance.tunnel.config import ConfigError, host_and_port, load
from appliance.tunnel.token import NAME

log = logging.getLogger(__name__)

PORT: Final = 9623

_CIDR: Final = "100.64.241.1/24"  # the original's is 100.64.240.1/24, which is our own tunnel's
_WIDEST: Final = 16

_CLIENT: Final = {"client": {"server", "auth"}, "log": {"level", "path", "days"}}
_SERVER: Final = {
    "server": {"listen", "auth_key", "nameservers", "route_url"},
    "dhcp": {"cidr", "gateway", "nameserver"},
    "log": {"level", "path", "days"},
}


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """One link to a legacy server. `server` is host:port, `auth` secret."""

    name: str
    server: str
    auth: str = field(repr=False)

    @property
    def device(self) -> str:
        """Return the name of the link's TUN."""
        return f"tun-{self.name}"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """A legacy server. An empty host listens on every address; `cidr` says where the pool begins; `key` is secret."""

    host: str
    port: int
    cidr: IPv4Interface
    gateway: IPv4Address
    key: str = field(repr=False)
    nameservers: tuple[str, ...] = ()
    route_url: str = ""


def read_client(path: Path) -> ClientConfig:
    """Read a client's file, whose name is the link's; raise `ConfigError`."""
    if not NAME.fullmatch(path.stem):
        raise ConfigError(f"{path}: name the file as the link, 1 to 11 of a-z, 0-9 and -, a letter first, and .toml")
    tables = _load(path, _CLIENT)
    server = _text(path, tables, "client", "server")
    host_and_port(server, f"{path}: [client] server")
    return ClientConfig(path.stem, server, _text(path, tables, "client", "auth"))


def read_server(path: Path) -> ServerConfig:
    """Read a server's file; raise `ConfigError`."""
    tables = _load(path, _SERVER)
    listen = _text(path, tables, "server", "listen", f":{PORT}")
    everywhere = listen.startswith(":")
    host, port = host_and_port(f"*{listen}" if everywhere else listen, f"{path}: [server] listen")
    cidr, gateway = _pool(path, tables)
    return ServerConfig(
        "" if everywhere else host,
        port,
        cidr,
        gateway,
        _text(path, tables, "server", "auth_key"),
        _texts(path, tables, "server", "nameservers"),
        _text(path, tables, "server", "route_url", "", empty=True),
    )


def _pool(path: Path, tables: dict[str, Any]) -> tuple[IPv4Interface, IPv4Address]:
    text = _text(path, tables, "dhcp", "cidr", _CIDR)
    try:
        cidr = IPv4Interface(text)
        gateway = IPv4Address(_text(path, tables, "dhcp", "gateway", str(cidr.network.network_address + 1)))
    except ValueError as error:
        raise ConfigError(f"{path}: [dhcp] {error}") from None
    if not _WIDEST <= cidr.network.prefixlen <= 30:
        raise ConfigError(f"{path}: [dhcp] cidr = {text!r}: write an address and a length of {_WIDEST} to 30")
    hosts = cidr.network
    if gateway not in hosts or gateway in (hosts.network_address, hosts.broadcast_address):
        raise ConfigError(f"{path}: [dhcp] gateway = {gateway} is no host of cidr = {text!r}")
    return cidr, gateway


def _load(path: Path, known: dict[str, set[str]]) -> dict[str, Any]:
    tables = load(path)
    for section, keys in tables.items():
        if section != "name" and section not in known:
            log.warning("%s: gtun 2.0.2 has no [%s], and so have we not: it is not read", path, section)
            continue
        for key in keys if isinstance(keys, dict) else ():
            if key not in known[section]:
                log.warning("%s: gtun 2.0.2 has no %s in [%s], and so have we not: it is not read", path, key, section)
    return tables


def _value(path: Path, tables: dict[str, Any], section: str, key: str) -> object:
    table = tables.get(section, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {section} must be a table: write [{section}]")
    return table.get(key)


def _text(
    path: Path, tables: dict[str, Any], section: str, key: str, default: str | None = None, *, empty: bool = False
) -> str:
    value = _value(path, tables, section, key)
    if value is None:
        value = default
    if value is None or (value == "" and not empty):
        raise ConfigError(f"{path}: [{section}] {key} is missing or empty: write {key} = {_EXAMPLES[key]}")
    if not isinstance(value, str):
        raise ConfigError(f"{path}: [{section}] {key} must be a text")
    return value


def _texts(path: Path, tables: dict[str, Any], section: str, key: str) -> tuple[str, ...]:
    value = _value(path, tables, section, key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"{path}: [{section}] {key} must be a list of texts")
    return tuple(value)


_EXAMPLES: Final = {
    "server": '"203.0.113.10:9623", the machine that gtund runs on',
    "auth": "the server's auth_key; without one nothing is sent",
    "listen": '":9623"',
    "auth_key": "a long random text, the clients' auth; without one anybody could come in",
    "cidr": f'"{_CIDR}"',
    "gateway": "an address of cidr",
}
