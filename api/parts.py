"""What the API needs of the appliance, and how it asks the surroundings before it lets a CIDR in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from appliance.guard import Facts, Reason, Severity
from appliance.surroundings import gather_facts
from appliance.timing import Timings
from appliance.tokens import Tokens
from appliance.traffic import Traffic
from cloud.tally import Tally

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.intent import IntentStore
    from appliance.kernel.state import Device
    from appliance.links import Links
    from appliance.model import Network
    from appliance.paths import Judge
    from appliance.status import CloudStatus, FirewallStatus, Layer, Repeated
    from cloud.provider import Observation, Provider, RouteEntry, Vpc

_FIRST_LOOK: Final = 5.0  # seconds
_POLL: Final = 0.05


class Kernel(Protocol):
    """What `forward` knows: how far the kernel is with a CIDR, and how it does itself."""

    def layer(self, network: Network) -> Layer:
        """Return the kernel's part of a CIDR."""
        ...

    def problem(self) -> str | None:
        """Return why the last pass failed, None where it did not."""
        ...

    def ready(self) -> bool:
        """Return whether a pass has come to its end since the start."""
        ...

    def firewall(self) -> FirewallStatus:
        """Return the back-end in use."""
        ...

    def repairs(self) -> Mapping[str, int]:
        """Return how often which kind of foreign change was mended."""
        ...

    def meddling(self) -> tuple[Repeated, ...]:
        """Return what somebody keeps changing."""
        ...

    async def devices(self) -> Mapping[str, Device]:
        """Return the network devices as they are now."""
        ...

    async def rules(self) -> Mapping[str, str]:
        """Return the text of every firewall rule of this machine, by the program that shows it."""
        ...


class Cloud(Protocol):
    """What `attract` knows: how far the cloud is with a CIDR, and how it does itself."""

    def layer(self, network: Network) -> Layer:
        """Return the cloud's part of a CIDR."""
        ...

    def status(self) -> CloudStatus:
        """Return the cloud as last seen."""
        ...

    @property
    def observation(self) -> Observation | None:
        """The route tables as last read, None as long as the cloud has not answered."""
        ...

    def vpc(self) -> Vpc | None:
        """Return the network around us, None as long as the cloud has not answered."""
        ...

    def entries(self) -> tuple[RouteEntry, ...]:
        """Return every route entry as last seen."""
        ...

    def carrying(self) -> frozenset[Network]:
        """Return the CIDRs that the kernel carries, as `attract` sees them."""
        ...

    def provider(self) -> Provider | None:
        """Return the cloud itself, None as long as it was not found."""
        ...

    def repairs(self) -> Mapping[str, int]:
        """Return how often which kind of foreign change was mended, or met and left alone."""
        ...

    async def adopt(self, network: Network, *, who: str = "operator") -> None:
        """Make somebody else's entry for this CIDR ours; raise `NotAdoptable` or `CloudError`."""
        ...


@dataclass(frozen=True, slots=True)
class About:
    """What the daemon says of itself. `listen`, `fingerprint`: of the TLS listener, empty where there is none.

    `hosts`: the names of this machine, as a client may call it. `config`: the file that it was started with; `secrets`:
    the files whose content must not leave this machine, beside those in the state directory.
    """

    version: str = ""
    listen: str = ""
    fingerprint: str = ""
    hosts: tuple[str, ...] = ()
    config: Path | None = None
    secrets: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Parts:
    """All that the application is made from. `clouded`: a cloud is configured; `paths`: tunnels are probed.

    `stop`: set when the daemon is told to end, so that nothing waits on. `log`: the last lines of its log.
    """

    store: IntentStore
    links: Links
    kernel: Kernel
    cloud: Cloud
    clouded: bool = True
    paths: Judge | None = None
    traffic: Traffic = field(default_factory=Traffic)
    about: About = About()
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    timings: Timings = field(default_factory=Timings)
    calls: Tally = field(default_factory=Tally)
    log: Collection[str] = ()
    tokens: Tokens = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", Tokens(self.store))


def known_facts(parts: Parts) -> Facts:
    """Return what is known without asking anybody: enough for the warnings beside a CIDR that is in already."""
    return Facts(
        vpc=parts.cloud.vpc(),
        entries=parts.cloud.entries(),
        intents=parts.store.all(),
        links=frozenset(link.name for link in parts.links.all()),
    )


async def asked_facts(parts: Parts) -> Facts:
    """Return all that the guard wants to know; after every wait, so that nothing in it is old."""
    facts = await gather_facts(parts.store, parts.links, parts.kernel.devices, parts.cloud.vpc())
    return replace(facts, entries=parts.cloud.entries())


async def first_look(parts: Parts) -> None:
    """Wait until the cloud has answered for the first time, or has not; for a daemon that has just started."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_LOOK):
            while _is_blind(parts) and parts.cloud.status().error is None and not parts.stop.is_set():  # noqa: ASYNC110
                await asyncio.sleep(_POLL)


def blind_spot(parts: Parts) -> tuple[Reason, ...]:
    """Return a warning where the cloud has not said yet what the VPC is, so that the guard could not look at it."""
    if not _is_blind(parts):
        return ()
    text = "the cloud has not answered yet: whether this CIDR overlaps the VPC could not be checked"
    return (Reason("vpc-unknown", Severity.WARN, text, "see `nexthop status` for why, and check it yourself"),)


def _is_blind(parts: Parts) -> bool:
    return parts.clouded and parts.cloud.vpc() is None
