"""What the appliance says about itself: computed from what was observed, never stored.

The first line is the verdict and its cause. OK: everything asked for works. DEGRADED: it works, or part of it does, and
somebody should look. DOWN: nothing that was asked for gets through. A firewall that is not the preferred one is
information, not a problem: packets pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from appliance.model import Intent, Network, Phase

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


class Verdict(Enum):
    """The one word."""

    OK = "ok"
    DEGRADED = "degraded"
    DOWN = "down"


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
    """What the route tables look like from here. `strays`: entries with our mark that nobody asked for."""

    provider: str
    vpc_id: str = ""
    instance_id: str = ""
    tables: tuple[str, ...] = ()
    error: Problem | None = None
    strays: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """Everything `nexthop status` shows. `summary` is its first line."""

    verdict: Verdict
    summary: str
    problems: tuple[Problem, ...]
    links: tuple[LinkStatus, ...]
    cidrs: tuple[CidrStatus, ...]
    firewall: FirewallStatus
    cloud: CloudStatus
    drift_repairs: Mapping[str, int] = field(default_factory=dict)


# What to do about a link that is down, by the code that its gtun gives.
_LINK_NEXT: Final[Mapping[str, str]] = {
    "not-running": "start the link's gtun service and read its log",
    "unreachable": "check the server's address and port, its security group, and that gtund runs",
    "pin-mismatch": "this is not the server that the token was made on: find out who answers there, then join again",
    "denied": "the server refuses this client's key: make a new token there with `gtund client add`, and join again",
    "protocol": "check that both ends run the same version",
    "no-path": "the session is up, but packets do not come back: look at forwarding and NAT at the far end",
    "timeout": "check the path to the server; it is tried again",
    "replaced": "another machine uses this client's key: give each its own token",
    "gone": "the server no longer knows this client: make a new token there with `gtund client add`, join again",
}


def summarise(
    *,
    links: Iterable[LinkStatus],
    cidrs: Iterable[CidrStatus],
    firewall: FirewallStatus,
    cloud: CloudStatus,
    kernel_problem: str | None = None,
    store_problem: str | None = None,
    drift_repairs: Mapping[str, int] | None = None,
) -> Status:
    """Put the layers together. `kernel_problem`: why the last pass of `forward` failed; `store_problem`: likewise."""
    links, cidrs = tuple(links), tuple(cidrs)
    wanted = [cidr for cidr in cidrs if cidr.intent.phase is Phase.PRESENT]
    problems: list[Problem] = []
    if store_problem:
        step = "packets keep flowing; free or mend the disk that holds the state directory"
        problems.append(Problem("store-unavailable", store_problem, step))
    if kernel_problem:
        problems.append(Problem("kernel", kernel_problem, "it is tried again; see the daemon's log"))
    problems.extend(_link_problem(link) for link in links if link.state != "up")
    if cloud.error is not None:
        problems.append(cloud.error)
    for cidr in wanted:
        problems.extend(_cidr_problems(cidr, cloud.error))
    problems.extend(_stray(network) for network in cloud.strays)
    verdict = _verdict(problems, links, wanted)
    return Status(
        verdict=verdict,
        summary=_summary(verdict, problems, links, wanted),
        problems=tuple(problems),
        links=links,
        cidrs=cidrs,
        firewall=firewall,
        cloud=cloud,
        drift_repairs=dict(drift_repairs or {}),
    )


def _link_problem(link: LinkStatus) -> Problem:
    code = link.code or link.state
    why = link.reason or ("no session yet" if link.state == "connecting" else "no reason given")
    step = _LINK_NEXT.get(code, "it is tried again; see the log of the link's gtun")
    return Problem(f"link-{code}", f"link {link.name} is {link.state} ({code}): {why}", step)


def _cidr_problems(cidr: CidrStatus, cloud_error: Problem | None) -> list[Problem]:
    """Return what keeps one wanted CIDR from working, unless the cloud's own problem has said it already."""
    found = []
    for name, layer in (("kernel", cidr.kernel), ("cloud", cidr.cloud), ("path", cidr.path)):
        said = cloud_error is not None and name == "cloud" and layer.code == cloud_error.code
        if layer.state is LayerState.ERROR and not said:
            text = f"{cidr.intent.network} ({name}): {layer.detail}"
            found.append(Problem(layer.code or name, text, _CIDR_NEXT.get(layer.code, "see the daemon's log")))
    return found


_CIDR_NEXT: Final[Mapping[str, str]] = {
    "no-path": "see whether the probe target lives, and what lies between it and the link's far end",
    "foreign-entry": "`nexthop cidr adopt` that entry, or remove it in the cloud's console, or remove the CIDR here",
    "changed-by-hand": "`nexthop cidr adopt` the entry to have it back, or remove the CIDR here",
    "link-unknown": "join that link, or remove the CIDR and add it via another one",
    "cloud-quota": "raise the route table's quota, or add one larger CIDR instead of several",
    "cloud-rejected": "remove the CIDR, or mend what the cloud complains about",
    "cloud-denied": "give the instance's role the permissions for route entries",
}


def _stray(network: Network) -> Problem:
    text = f"the cloud sends {network} here by an entry with our mark, but nobody asked for it"
    step = f"`nexthop cidr add {network}` to carry it, or `nexthop stray rm {network}` to remove the entry"
    return Problem("stray-entry", text, step)


def _verdict(problems: list[Problem], links: tuple[LinkStatus, ...], wanted: list[CidrStatus]) -> Verdict:
    up = {link.name for link in links if link.state == "up"}
    if wanted and not any(cidr.intent.via in up and cidr.kernel.state is LayerState.OK for cidr in wanted):
        return Verdict.DOWN
    return Verdict.DEGRADED if problems else Verdict.OK


def _summary(verdict: Verdict, problems: list[Problem], links: tuple[LinkStatus, ...], wanted: list[CidrStatus]) -> str:
    up = sum(link.state == "up" for link in links)
    ready = sum(cidr.kernel.state is cidr.cloud.state is LayerState.OK for cidr in wanted)
    counts = f"{ready} of {len(wanted)} CIDRs ready, {up} of {len(links)} links up"
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return f"{verdict.name}: {problems[0].text}{more}; {counts}"
    if verdict is Verdict.DOWN:
        return f"{verdict.name}: nothing is carried yet; {counts}"
    if not links:
        return f"{verdict.name}: no link yet: `nexthop link join NAME` takes a token from the far end"
    return f"{verdict.name}: {counts}"
