"""What a cloud's route table looks like to us, and what can go wrong, named by what the caller must do.

    CloudError
    +- Throttled       ask again later, slower
    +- Conflict        the table is busy: read back, then try again
    +- Duplicate       an entry for that CIDR is there that is not ours: show it, never touch it
    +- QuotaExceeded   nothing to retry: the operator must raise the quota or aggregate
    +- Denied          nothing to retry: credentials or permissions must be mended
    +- Rejected        the cloud will never take this entry as it is
    +- Unavailable     no answer that we can trust: it may or may not have happened, so read back first

A provider keeps no memory of the table: `observe` reads it whole, `ensure` and `withdraw` act on any number of CIDRs
and may be repeated without harm. What concerns one CIDR is returned for it and stops no other; what concerns the cloud
is raised. Which of the two it is follows from what else works, not from the error's kind: a write that goes on failing
while the tables can be read and other writes are taken is about its CIDR.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Protocol

Network = IPv4Network | IPv6Network


class CloudError(Exception):
    """A call failed. `code` is the cloud's own code, `request_id` what its support asks for; neither is ever secret.

    `refused`: what had stopped single CIDRs by the time at which this ended a request about many.
    """

    def __init__(self, message: str, *, code: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id
        self.refused: Refusals = {}


class Throttled(CloudError):
    """Too many calls."""


class Conflict(CloudError):
    """Another change of this VPC is under way."""


class Duplicate(CloudError):
    """The CIDR already has an entry that is not ours."""


class QuotaExceeded(CloudError):
    """The route table is full."""


class Denied(CloudError):
    """Credentials are missing, wrong or expired, or the policy does not allow this."""


class Rejected(CloudError):
    """The cloud refuses the entry itself."""


class Unavailable(CloudError):
    """No usable answer."""


class Owner(Enum):
    """Whose a route entry is."""

    OURS = "ours"  # carries this appliance's mark
    EARLIER = (
        "earlier"  # another machine's of this appliance, before this one took over: ours to point here, not to remove
    )
    CHANGED = "changed"  # carries our mark, and a next hop that we never gave it: somebody means it
    FOREIGN = "foreign"  # made by somebody else, or by another machine of this appliance that nobody took over from
    SYSTEM = "system"  # made by the cloud: the VPC's own vSwitches


class EntryStatus(Enum):
    """The cloud's own states of an entry; writes are asynchronous."""

    PENDING = "Pending"
    AVAILABLE = "Available"
    MODIFYING = "Modifying"
    DELETING = "Deleting"


@dataclass(frozen=True, slots=True)
class RouteEntry:
    """One line of one route table. `next_hop` is an instance id, or empty for a system entry."""

    destination: Network
    next_hop: str
    next_hop_type: str
    table: str
    entry_id: str
    owner: Owner
    status: EntryStatus
    name: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Vpc:
    """The network around us, as the cloud describes it."""

    vpc_id: str
    region: str
    cidrs: tuple[Network, ...]
    vswitches: tuple[tuple[str, Network], ...]  # (vSwitch id, its CIDR)
    instance_id: str
    private_ip: IPv4Address
    tables: tuple[str, ...]  # the route tables that we program
    uses: tuple[tuple[str, str], ...] = ()  # (vSwitch id, the route table that it uses)
    kinds: tuple[tuple[str, str], ...] = ()  # (route table, "system" or "custom"), as far as it is known

    @property
    def bypassed(self) -> tuple[tuple[str, str], ...]:
        """(vSwitch id, its table) of those whose hosts our entries do not reach: their table is none of `tables`."""
        return tuple((vswitch, table) for vswitch, table in self.uses if table and table not in self.tables)


@dataclass(frozen=True, slots=True)
class Quota:
    """How many custom entries one table takes, and how many of them we leave free where others use the table, too."""

    limit: int = 200
    reserve: int = 5


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that one pass of reading saw. `at`: when, in seconds since the epoch; 0 where nobody noted it.

    `elsewhere`: our entries in tables that vSwitches use and that we do not program: we did once. `unread`: such tables
    that could not be read.
    """

    vpc: Vpc
    entries: tuple[RouteEntry, ...]
    quota: Quota = Quota()
    at: float = 0.0
    elsewhere: tuple[RouteEntry, ...] = ()
    unread: tuple[str, ...] = ()

    def to(self, destination: Network) -> tuple[RouteEntry, ...]:
        """Return the entries for exactly this destination, in all tables that we program."""
        return tuple(entry for entry in self.entries if entry.destination == destination)


class State(Enum):
    """What an examination found of one prerequisite."""

    OK = "ok"
    WARN = "warn"  # it works, or may work; somebody should look
    FAIL = "fail"  # it does not work before this is mended
    UNKNOWN = "unknown"  # it could not be found out


@dataclass(frozen=True, slots=True)
class Finding:
    """One prerequisite: `code` is stable, `text` says how it is, `fix` is a command or a place in the console."""

    code: str
    state: State
    text: str
    fix: str = ""


Refusals = Mapping[Network, CloudError]
"""What stops single CIDRs, of any kind."""


class Provider(Protocol):
    """A cloud whose route tables we program. Every method raises `CloudError` and nothing else."""

    async def observe(self) -> Observation:
        """Read the VPC, every entry of every table that we program, and our own in the others that vSwitches use."""
        ...

    async def ensure(self, destinations: Collection[Network]) -> Refusals:
        """Make each of `destinations` point at this instance in every table; return when the cloud calls it Available.

        One that is refused in one table is done in the others all the same.
        """
        ...

    async def withdraw(self, destinations: Collection[Network]) -> Refusals:
        """Remove our entries for `destinations` from every table, `elsewhere` included; return when they are gone.

        None there is no error.
        """
        ...

    async def adopt(self, destination: Network) -> None:
        """Make the entry that somebody else has for `destination` ours, in place, in every table that has one.

        Only ever at a person's explicit wish. Raises what stops it, `Rejected` also where there is no such entry.
        """
        ...

    async def examine(self, wanted: Collection[Network]) -> tuple[Finding, ...]:
        """Look at every prerequisite of carrying `wanted`. Changes nothing; raises nothing but `CloudError`."""
        ...

    def policy(self) -> Mapping[str, object]:
        """Return the least that our credentials have to be allowed, as the cloud's own policy document."""
        ...
