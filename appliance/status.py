"""What is known of the appliance, layer by layer: observed, never stored. What it means says `appliance.verdict`.

A firewall that is not the preferred one is information, not a problem: packets pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from appliance.model import Intent, Network

if TYPE_CHECKING:
    from appliance.guard import Reason


class LayerState(Enum):
    """How far one layer is with one CIDR."""

    OK = "ok"
    PENDING = "pending"  # under way, or waiting for something that comes by itself
    ERROR = "error"  # will not come right without somebody
    ABSENT = "absent"  # not there, and not meant to be


@dataclass(frozen=True, slots=True)
class Layer:
    """One CIDR in one layer, kernel or cloud. `code` is stable, `detail` is for people."""

    state: LayerState
    detail: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something for a person: a stable code, what is the matter, and what to do next."""

    code: str
    text: str
    next_step: str


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """One link as its gtun describes itself on the control socket; see `appliance.links`.

    `state`: "up", "connecting" or "down". `since` and `retry_at` are seconds since the epoch, `rtt_ms` milliseconds.
    `channel`: "hybrid", "stream" or "datagram", as it is in use. `loss`: the share of datagrams' units that was lost
    over the last seconds, 0 to 1; `unit_bytes`: what such a unit holds at present.
    """

    name: str
    device: str
    state: str
    code: str = ""
    reason: str = ""
    server: str = ""
    address: str = ""
    peer: str = ""
    pid: int | None = None
    since: float | None = None
    retry_at: float | None = None
    rtt_ms: float | None = None
    channel: str = ""
    loss: float | None = None
    unit_bytes: int | None = None
    counters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CidrStatus:
    """One CIDR through all layers. `path`: whether its probe target answers through the tunnel."""

    intent: Intent
    kernel: Layer
    cloud: Layer
    warnings: tuple[Reason, ...] = ()
    path: Layer = Layer(LayerState.ABSENT, "no probe target", "no-probe")


@dataclass(frozen=True, slots=True)
class FirewallStatus:
    """Which back-end holds our rules, and why it is not the preferred one."""

    name: str
    fallback_reason: str = ""


@dataclass(frozen=True, slots=True)
class CloudStatus:
    """What the route tables look like from here. `strays`: entries with our mark that nobody asked for.

    `left`: (table, CIDR) of our entries for what is asked for, in tables that hosts use and that we program no more.
    """

    provider: str
    vpc_id: str = ""
    instance_id: str = ""
    tables: tuple[str, ...] = ()
    error: Problem | None = None
    strays: tuple[Network, ...] = ()
    left: tuple[tuple[str, Network], ...] = ()


@dataclass(frozen=True, slots=True)
class Repeated:
    """Something that was put right `count` times over the last minute: `kind` as in the repairs' counters."""

    kind: str
    what: str
    count: int


@dataclass(frozen=True, slots=True)
class Status:
    """Everything that is known of the appliance at one moment; `appliance.verdict` says what it means.

    `kernel_problem`: why the last pass of `forward` failed; `store_problem`: likewise for the database.
    `meddling`: what somebody keeps changing.
    """

    links: tuple[LinkStatus, ...]
    cidrs: tuple[CidrStatus, ...]
    firewall: FirewallStatus
    cloud: CloudStatus
    kernel_problem: str | None = None
    store_problem: str | None = None
    drift_repairs: Mapping[str, int] = field(default_factory=dict)
    meddling: tuple[Repeated, ...] = ()
