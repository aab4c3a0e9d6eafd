"""What the kernel holds, as values, and what can go wrong, named by what the caller must do.

    KernelError
    +- DeviceGone     the device is absent or down: wait for its event, then try again
    +- Refused        the kernel will not take it as things are: show the text
       +- FirewallError   (firewall.py) the rules are not there as wanted

Pure: no netlink here, so that what decides can import this and nothing that acts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

Network = IPv4Network | IPv6Network
Address = IPv4Interface | IPv6Interface

# Our mark on a route (rtm_protocol). Not listed in iproute2's rt_protos, and above what its routing daemons use.
PROTOCOL: Final = 110
TUNNEL_METRIC: Final = 50
UNREACHABLE_METRIC: Final = 4000
# gtun gives every device this alias (IFLA_IFALIAS); a device without it is not ours to touch.
ALIAS: Final = "nexthop link "


class KernelError(Exception):
    """The kernel did not do what was asked."""


class DeviceGone(KernelError):
    """The device is absent, or down: its link event says when to try again."""


class Refused(KernelError):
    """The kernel refuses; the message says what and why, for the operator."""


class _Known4(IPv4Network):
    """A network that works its hash out once: a pass over a thousand CIDRs looks networks up ten thousand times."""

    def __init__(self, address: tuple[int, int]) -> None:
        super().__init__(address)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


class _Known6(IPv6Network):
    """The same for IPv6."""

    def __init__(self, address: tuple[int, int]) -> None:
        super().__init__(address)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


@lru_cache(maxsize=1 << 15)
def one(network: Network) -> Network:
    """Return the same object for equal networks: looking one up compares identity first, and equality is slow."""
    known = _Known4 if network.version == 4 else _Known6
    return known((int(network.network_address), network.prefixlen))


@dataclass(frozen=True, slots=True)
class Route:
    """One route of ours in the main table. `device` None is an ``unreachable`` route."""

    destination: Network
    device: str | None
    metric: int
    _hash: int = field(init=False, repr=False, compare=False)  # that of a network is slow, and there are thousands

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.destination, self.device, self.metric)))

    def __hash__(self) -> int:
        return self._hash


@lru_cache(maxsize=1 << 15)
def route_of(destination: Network, device: str | None, metric: int) -> Route:
    """Return the same object for equal routes, as `one` does for networks."""
    return Route(destination, device, metric)


@dataclass(frozen=True, slots=True)
class Device:
    """A network device. `carrier`: something is at its other end; `kind`: "tun", "veth", ... or "" for hardware."""

    name: str
    index: int
    up: bool
    carrier: bool
    addresses: tuple[Address, ...] = ()
    alias: str = ""
    kind: str = ""

    @property
    def ours(self) -> bool:
        """Whether gtun made this device."""
        return self.kind == "tun" and self.alias.startswith(ALIAS)


@dataclass(frozen=True, slots=True)
class KernelState:
    """Everything that one pass of reading saw.

    `routes` are those that we could have written, as they are; `foreign` the destinations of everybody else's unicast
    routes in the main table (0.0.0.0/0 among them); `default_device` has the best IPv4 default route, None without one.
    """

    routes: frozenset[Route]
    foreign: frozenset[Network]
    devices: Mapping[str, Device]
    default_device: str | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """Something was not as wanted. `now` equals `wanted` where it could be mended."""

    kind: str
    was: str
    now: str
    wanted: str

    @property
    def mended(self) -> bool:
        """Whether it is as wanted now."""
        return self.now == self.wanted
