"""nexthop.toml as frozen dataclasses.

Everything has a default, so an empty file is a valid one. What is written has to be right: a key that we do not know is
a typing error that would otherwise be ignored in silence, so it is refused by name, as is a value of the wrong kind.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final, TypeVar

from appliance.tunnel.token import NAME
from cloud.choice import Tag

DEFAULT_PATH: Final = Path("/etc/nexthop/nexthop.toml")


class ConfigError(ValueError):
    """The file cannot be used; the message names the file, the key, and what to write."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where state survives a reboot, and where it must not."""

    state: Path = Path("/var/lib/nexthop")
    run: Path = Path("/run/nexthop")

    @property
    def database(self) -> Path:
        """The operator's intent."""
        return self.state / "nexthop.db"

    @property
    def socket(self) -> Path:
        """Where the API listens."""
        return self.run / "nexthopd.sock"

    @property
    def forward(self) -> Path:
        """Where nexthop-forward listens; the directory is its own."""
        return self.run / "forward" / "forward.sock"


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """`group` may use the socket.

    `listen`: ADDRESS:PORT for TLS, empty for none. `certificate`, `key`: PEM files, None for one of our own making.
    `hosts`: names that clients may call this machine by, beside its addresses.
    """

    group: str = "nexthop"
    listen: str = ""
    certificate: Path | None = None
    key: Path | None = None
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelConfig:
    """`firewall` is the preferred back-end; where its probe fails the other one takes over.

    `conntrack`: how many connections the machine must be able to keep track of; 0 for what the kernel chose.
    `inbound`: the links whose far end may begin connections to the VPC, from a CIDR that is carried through that link.
    Through all others come replies and ICMP errors alone. The appliance itself is closed to every far end.
    """

    firewall: str = "iptables"
    conntrack: int = 0
    inbound: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CloudConfig:
    """Which cloud, and how to reach its API.

    `endpoint`: host, or host:port; empty means the region's own. `route_tables`: ids; empty means all that vSwitches
    use. `route_table_tag`: KEY or KEY=VALUE; the tables that carry it are programmed, with those named. `appliance_id`:
    goes into the mark on our entries; empty means the instance's id, and a second machine that shall take over from
    this one needs the same, and a higher `epoch`: what another machine has written is left to it otherwise.
    `resync_seconds`: how often the route tables are read when nothing happens. `credentials`:
    "role" for the instance's RAM role, "env" for the SDK's environment variables, else the path of a 0600 file.
    `route_quota`: the custom entries that a table takes (the account's vpc_quota_route_entrys_num); `route_reserve`:
    how many of them stay free where others use the table, too.
    """

    provider: str = "aliyun"
    endpoint: str = ""
    protocol: str = "https"
    metadata: str = "http://100.100.100.200"
    route_tables: tuple[str, ...] = ()
    route_table_tag: str = ""
    appliance_id: str = ""
    epoch: int = 1
    resync_seconds: float = 60.0
    credentials: str = "role"
    route_quota: int = 200
    route_reserve: int = 5


@dataclass(frozen=True, slots=True)
class Config:
    """All of nexthop.toml."""

    paths: Paths = field(default_factory=Paths)
    api: ApiConfig = field(default_factory=ApiConfig)
    kernel: KernelConfig = field(default_factory=KernelConfig)
    cloud: CloudConfig = field(default_factory=CloudConfig)


T = TypeVar("T")
Reader = Callable[[object], object]


class _Bad(Exception):
    """A value is wrong; the message completes 'write ...'."""


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _Bad('a text in quotes, such as "abc"')
    return value


def _maybe_text(value: object) -> str:
    if not isinstance(value, str):
        raise _Bad('a text in quotes; "" for the default')
    return value


def _listen(value: object) -> str:
    if value == "":
        return ""
    address, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    try:
        ip_address(address.removeprefix("[").removesuffix("]"))
        number = int(port) if port.isascii() and port.isdecimal() else 0
    except ValueError:
        number = 0
    if not 0 < number < 65536:
        raise _Bad('an address and a port, such as "0.0.0.0:8443" or "[::]:8443"; "" for no TLS')
    return str(value)


def _one_of(*choices: str) -> Reader:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise _Bad(" or ".join(f'"{choice}"' for choice in choices))
        return value

    return read


def _absolute(value: object) -> Path:
    if not isinstance(value, str) or not value.startswith("/"):
        raise _Bad('an absolute path in quotes, such as "/var/lib/nexthop"')
    return Path(value)


def _texts(mend: str) -> Reader:
    def read(value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise _Bad(mend)
        return tuple(value)

    return read


def _links(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and NAME.fullmatch(item) for item in value):
        raise _Bad('a list of links\' names, such as ["hk"]; [] for none')
    return tuple(value)


def _tag(value: object) -> str:
    try:
        return str(Tag.parse(value)) if isinstance(value, str) and value else _maybe_text(value)
    except ValueError:
        raise _Bad('KEY or "KEY=VALUE", such as "nexthop=yes", up to 128 characters each') from None


def _appliance_id(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9._-]{0,64}", value, re.ASCII):
        raise _Bad('at most 64 letters, digits, ".", "_" and "-"; "" for the instance\'s id')
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 86400:
        raise _Bad("a number of seconds between 1 and 86400, without quotes")
    return float(value)


def _count(least: int, most: int = 10_000) -> Reader:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise _Bad(f"a whole number between {least} and {most}, without quotes")
        return value

    return read


def _url(value: object) -> str:
    if not isinstance(value, str) or not value.startswith(("http://", "https://")):
        raise _Bad('an address that starts with http:// or https://, such as "http://100.100.100.200"')
    return value.rstrip("/")


def _credentials(value: object) -> str:
    if not isinstance(value, str) or not (value in {"role", "env"} or value.startswith("/")):
        raise _Bad('"role", "env", or the absolute path of a file')
    return value


_SECTIONS: Final[Mapping[str, Mapping[str, Reader]]] = {
    "paths": {"state": _absolute, "run": _absolute},
    "api": {
        "group": _text,
        "listen": _listen,
        "certificate": _absolute,
        "key": _absolute,
        "hosts": _texts('a list of names, such as ["nexthop.example.com"]; [] for none'),
    },
    "kernel": {"firewall": _one_of("iptables", "nftables"), "conntrack": _count(0, 1 << 30), "inbound": _links},
    "cloud": {
        "provider": _one_of("aliyun", "none"),
        "endpoint": _maybe_text,
        "protocol": _one_of("https", "http"),
        "metadata": _url,
        "route_tables": _texts('a list of texts, such as ["vtb-1", "vtb-2"]; [] for all'),
        "route_table_tag": _tag,
        "appliance_id": _appliance_id,
        "epoch": _count(1, 1_000_000),
        "resync_seconds": _seconds,
        "credentials": _credentials,
        "route_quota": _count(1),
        "route_reserve": _count(0),
    },
}


def parse(text: str, source: str = "nexthop.toml") -> Config:
    """Read a configuration; raise `ConfigError`, whose message begins with `source`."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number too long, lists too deep: no TOMLDecodeError, but no TOML
        raise ConfigError(f"{source}: this is not TOML: {error}") from None
    for name in document:
        if name not in _SECTIONS:
            known = ", ".join(f"[{section}]" for section in _SECTIONS)
            raise ConfigError(f"{source}: unknown section or key {name!r}: write one of {known}")
    api = _section(ApiConfig, "api", document, source)
    if (api.certificate is None) != (api.key is None):
        raise ConfigError(f"{source}: api.certificate and api.key go together: write both, or neither")
    cloud = _section(CloudConfig, "cloud", document, source)
    if cloud.route_reserve >= cloud.route_quota:
        reserve, quota = f"cloud.route_reserve = {cloud.route_reserve}", f"cloud.route_quota = {cloud.route_quota}"
        raise ConfigError(f"{source}: {reserve} leaves no entry of {quota} to us: write a smaller reserve")
    return Config(
        paths=_section(Paths, "paths", document, source),
        api=api,
        kernel=_section(KernelConfig, "kernel", document, source),
        cloud=cloud,
    )


def _section(kind: Callable[..., T], name: str, document: Mapping[str, object], source: str) -> T:
    """Build one section's dataclass from what the file says."""
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{source}: {name!r} is a section: write [{name}] on a line of its own")
    readers = _SECTIONS[name]
    values: dict[str, object] = {}
    for key, value in table.items():
        if key not in readers:
            raise ConfigError(f"{source}: unknown key {name}.{key}: write one of {', '.join(readers)}")
        try:
            values[key] = readers[key](value)
        except _Bad as bad:
            raise ConfigError(f"{source}: {name}.{key} = {value!r} will not do: write {bad}") from None
    return kind(**values)


def load(path: Path) -> Config:
    """Read the file at `path`; raise `ConfigError` also where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; name another file with --config") from None
    return parse(text, str(path))
