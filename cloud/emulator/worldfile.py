"""world.toml as values: what exists in the emulated region. README.md describes every key.

Rule: everything is checked here, once, so that nothing behind this file meets a world that contradicts itself.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations
from typing import Any, Final, TypeVar, get_type_hints

T = TypeVar("T")

QUOTA: Final = 200  # custom entries of one table, by default


class BadWorld(ValueError):
    """world.toml cannot be used; the message names the place and says what it should be."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An IPv4 address and a TCP port (0: any free one) to listen on."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the two services answer; metadata askers from 127.0.0.0/8 count as the instance `loopback_is`."""

    api: Endpoint
    metadata: Endpoint
    loopback_is: str = ""


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A long-lived key pair; `allow`: what it may do, as in a RAM policy ("vpc:Describe*")."""

    id: str
    secret: str = field(repr=False)
    allow: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class Role:
    """The RAM role of instances that have one; its credentials live `lifetime_seconds`; `allow` as for a key."""

    name: str
    lifetime_seconds: int = 21600
    allow: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class Network:
    """The VPC itself."""

    id: str
    cidr: IPv4Network


@dataclass(frozen=True, slots=True)
class RouteTable:
    """A route table, `type` System or Custom; `tags` as KEY=VALUE."""

    id: str
    type: str = "Custom"
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VSwitch:
    """A subnet of the VPC; `interface` is where its machines are, in the emulator's network namespace."""

    id: str
    cidr: IPv4Network
    zone: str
    table: str
    interface: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine with one network interface; `user_data` and `public_key` are what it was started with."""

    id: str
    ip: IPv4Address
    vswitch: str
    eni: str
    mac: str
    role: bool = False
    eip: IPv4Address | None = None
    source_dest_check: bool = False
    security_group: str = ""
    user_data: str = field(default="", repr=False)
    public_key: str = ""


@dataclass(frozen=True, slots=True)
class SecurityRule:
    """One rule; `cidr` is the source of an ingress rule and the destination of an egress one."""

    direction: str
    cidr: IPv4Network
    protocol: str = "ALL"
    ports: str = "-1/-1"
    policy: str = "Accept"
    priority: int = 1


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """A security group. It is listed, and not enforced: the virtual router forwards whatever comes.

    `type`: normal (a basic group), or enterprise (an advanced one, which lets nothing out by itself).
    """

    id: str
    rule: tuple[SecurityRule, ...] = ()
    type: str = "normal"


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule by which the API misbehaves; README.md says what each `kind` does.

    `action`: whose calls, with ``*`` and ``?``. `nth`: only the n-th of them from now on (0: any). `probability`: of
    each call that fits. `times`: how often at most (0: without end). `code`, `status`, `message`: of an error.
    `seconds`: how long a slow answer takes, or how far a stale list lags.
    """

    kind: str
    action: str = "*"
    nth: int = 0
    probability: float = 1.0
    times: int = 0
    code: str = ""
    status: int = 400
    message: str = ""
    seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class RouterSpec:
    """Whether, and how, the kernel plays the virtual router."""

    kernel: bool = False
    internet_interface: str = ""
    internet_gateway: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class MetadataSpec:
    """`require_token`: refuse metadata without a token, as an instance with HttpTokens=required does."""

    require_token: bool = False


@dataclass(frozen=True, slots=True)
class WorldFile:
    """The whole file."""

    region: str
    listen: Listen
    vpc: Network
    route_table: tuple[RouteTable, ...]
    vswitch: tuple[VSwitch, ...]
    instance: tuple[Instance, ...] = ()
    access_key: tuple[AccessKey, ...] = ()
    role: Role | None = None
    router: RouterSpec = RouterSpec()
    metadata: MetadataSpec = MetadataSpec()
    settle_ms: int = 0
    quota: int = QUOTA
    account: str = "1234567890123456"
    duplicate_code: str = ""
    security_group: tuple[SecurityGroup, ...] = ()
    fault: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        tables = [table.id for table in self.route_table]
        _need([table.type for table in self.route_table].count("System") == 1, "exactly one route_table of type System")
        for kind, ids in (
            ("route_table", tables),
            ("vswitch", [each.id for each in self.vswitch]),
            ("instance", [each.id for each in self.instance]),
            ("instance ip", [str(each.ip) for each in self.instance]),
            ("instance eip", [str(each.eip) for each in self.instance if each.eip]),
            ("vswitch interface", [each.interface for each in self.vswitch if each.interface]),
        ):
            _need(len(set(ids)) == len(ids), f"every {kind} once, not {ids}")
        self._check_networks(tables)
        self._check_router()

    def _check_networks(self, tables: Sequence[str]) -> None:
        for vswitch in self.vswitch:
            _need(vswitch.table in tables, f"vswitch {vswitch.id}: table to be one of {tables}")
            _need(vswitch.cidr.subnet_of(self.vpc.cidr), f"vswitch {vswitch.id}: a cidr inside {self.vpc.cidr}")
        for one, other in combinations(self.vswitch, 2):
            _need(not one.cidr.overlaps(other.cidr), f"vswitches {one.id} and {other.id} not to overlap")
        where = {vswitch.id: vswitch for vswitch in self.vswitch}
        for instance in self.instance:
            _need(instance.vswitch in where, f"instance {instance.id}: vswitch to be one of {sorted(where)}")
            _need(instance.ip in where[instance.vswitch].cidr, f"instance {instance.id}: an ip inside its vswitch")
            groups = {each.id for each in self.security_group}
            fits = not instance.security_group or instance.security_group in groups
            _need(fits, f"instance {instance.id}: security_group to be one of {sorted(groups)}")
            _need(self.role is not None or not instance.role, f"a [role], since instance {instance.id} has role = true")
        if self.listen.loopback_is:
            _need(
                self.listen.loopback_is in {each.id for each in self.instance}, "listen.loopback_is to be an instance"
            )

    def _check_router(self) -> None:
        internet = self.router.internet_interface != "", self.router.internet_gateway is not None
        _need(internet[0] == internet[1], "router.internet_interface and internet_gateway both, or neither")
        if self.router.kernel:
            _need(
                all(each.interface for each in self.vswitch), "an interface for every vswitch when router.kernel is on"
            )


def _need(held: bool, wish: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not held:
        raise BadWorld(f"world.toml needs {wish}")


def read_world(text: str) -> WorldFile:
    """Read world.toml's text; raise `BadWorld`."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadWorld(f"world.toml is not TOML: {error}") from None
    return _fill(WorldFile, raw, "")


def read_faults(raw: object) -> tuple[Fault, ...]:
    """Read fault rules as JSON gives them: one object, or a list of them; raise `BadWorld`."""
    items = raw if isinstance(raw, list) else [raw]
    return tuple(_fill(Fault, each, f"fault[{n}].") for n, each in enumerate(items))


def _endpoint(value: object) -> Endpoint:
    host, colon, port = str(value).rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError("ADDRESS:PORT")
    return Endpoint(str(IPv4Address(host)), int(port))


def _plain(kind: type[T]) -> Callable[[object], T]:
    def check(value: object) -> T:
        if type(value) is not kind:
            raise ValueError(f"a {kind.__name__}")
        return value

    return check


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a number")  # noqa: TRY004 - what `_value` catches
    return float(value)


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError('a list of texts, such as ["vpc:Describe*"]')
    return tuple(value)


_SCALARS: Final[Mapping[Any, Callable[[object], object]]] = {
    str: _plain(str),
    int: _plain(int),
    bool: _plain(bool),
    float: _number,
    tuple[str, ...]: _texts,
    Endpoint: _endpoint,
    IPv4Address: lambda value: IPv4Address(_plain(str)(value)),
    IPv4Address | None: lambda value: IPv4Address(_plain(str)(value)),
    IPv4Network: lambda value: IPv4Network(_plain(str)(value)),
}
_TABLES: Final[Mapping[Any, type[Any]]] = {
    Listen: Listen,
    Network: Network,
    Role | None: Role,
    RouterSpec: RouterSpec,
    MetadataSpec: MetadataSpec,
}
_LISTS: Final[Mapping[Any, type[Any]]] = {
    tuple[RouteTable, ...]: RouteTable,
    tuple[VSwitch, ...]: VSwitch,
    tuple[Instance, ...]: Instance,
    tuple[AccessKey, ...]: AccessKey,
    tuple[SecurityGroup, ...]: SecurityGroup,
    tuple[SecurityRule, ...]: SecurityRule,
    tuple[Fault, ...]: Fault,
}


def _fill(kind: type[T], raw: object, where: str) -> T:
    """Make a `kind` out of a TOML table, whose keys are its fields."""
    if not isinstance(raw, dict):
        raise BadWorld(f"world.toml: {where or 'the file'} has to be a table")
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]  # every kind here is a dataclass
    for key in raw:
        if key not in known:
            raise BadWorld(f"world.toml: unknown key {where}{key}; known here: {', '.join(sorted(known))}")
    hints = get_type_hints(kind)
    values = {key: _value(hints[key], value, f"{where}{key}") for key, value in raw.items()}
    for name, each in known.items():
        if name not in values and each.default is MISSING:
            raise BadWorld(f"world.toml: {where}{name} is missing")
    return kind(**values)


def _value(hint: object, value: object, where: str) -> object:
    if hint in _SCALARS:
        try:
            return _SCALARS[hint](value)
        except ValueError as error:
            raise BadWorld(f"world.toml: {where} = {value!r} should be: {error}") from None
    if hint in _TABLES:
        return _fill(_TABLES[hint], value, f"{where}.")
    if not isinstance(value, list):
        raise BadWorld(f"world.toml: write [[{where}]], since there may be several")
    return tuple(_fill(_LISTS[hint], each, f"{where}[{n}].") for n, each in enumerate(value))
