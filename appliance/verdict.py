"""What is the matter, worst first, and what to do about it: the first line of every screen. Pure.

A finding is `broken` where no CIDR works and this is among the reasons, `degraded` where something is not as it should
be, and `ok` where it is only advice. The verdict is the first finding; without one, all is well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from appliance.model import Phase
from appliance.status import LayerState

if TYPE_CHECKING:
    from appliance.model import Network
    from appliance.status import CidrStatus, LinkStatus, Problem, Repeated, Status


class Level(Enum):
    """How bad it is."""

    OK = "ok"
    DEGRADED = "degraded"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a person should know: a stable code, what it is, what to do next, and what it is about."""

    level: Level
    code: str
    text: str
    next_step: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line for all of it."""

    level: Level
    text: str
    next_step: str


_REJOIN: Final = (
    "make a token there with `gtund client rotate CLIENT`, or `gtund client add CLIENT` where `gtund client ls`"
    " does not list it, and give it to `nexthop link rotate {link}`"
)
# What to do about a link that is down, by the code that its gtun gives; {link} is its name.
_LINK: Final[Mapping[str, str]] = {
    "not-running": "`journalctl -u nexthop-gtun@{link}` says why; `systemctl restart nexthop-gtun@{link}` starts it",
    "unreachable": "check the server's address and port, its security group, and that gtund runs",
    "pin-mismatch": f"find out who answers there; where that is as it should be, {_REJOIN}",
    "denied": _REJOIN,
    "removed": f"to have it back, {_REJOIN}",
    "protocol": "check that both ends run the same version",
    "version": "upgrade the older of the two ends",
    "device": "find out what takes the link's device or its address away; it is tried again",
    "stopping": "gtund was stopped at the far end: see whether it starts again",
    "no-path": "look at forwarding and NAT at the far end",
    "unproven": "let the far end answer pings from the tunnel, or `nexthop cidr set CIDR --probe` what answers there",
    "timeout": "check the path to the server; it is tried again",
    "replaced": "where another machine uses this client's key, give each its own token",
    "gone": "it is tried again; where it goes on, look at the path to the server and at gtund's log there",
    "broken": "it is tried again; where it goes on, look at gtund's log at the far end",
}
_TRIED: Final = "it is tried again; `journalctl -u nexthop-gtun@{link}` may say more"
_CIDR: Final[Mapping[str, str]] = {
    "no-path": "the tunnel works; see whether the probe target lives, and what lies between it and the link's far end",
    "foreign-entry": "`nexthop cidr adopt` that entry, or remove it in the cloud's console, or remove the CIDR here",
    "changed-by-hand": "`nexthop cidr adopt` the entry to have it back, or remove the CIDR here",
    "overlaps-vswitch": "remove the CIDR and add it without that vSwitch, or move the vSwitch's hosts",
    "contains-vpc": "remove the CIDR and add only the far network",
    "link-unknown": "join that link, or remove the CIDR and add it via another one",
    "no-ipv6": "have gtund serve an IPv6 CIDR there ([tunnel] serve in gtund.toml), or remove this one",
    "cloud-quota": "raise the route table's quota, or add one larger CIDR instead of several",
    "cloud-rejected": "remove the CIDR, or mend what the cloud complains about",
    "cloud-denied": "give the instance's role the permissions that `nexthop ram-policy` prints",
}
_STORE: Final = "packets keep flowing; free or mend the disk that holds the state directory"
_KERNEL: Final = "find out what undoes or forbids it (another program, a container's limits); it is tried again"
# How to find who keeps changing something, by the kind of repair.
_WHO: Final[Mapping[str, str]] = {
    "sysctl": "find what sets it (/etc/sysctl.d, a timer, a script, another daemon), and make that stop",
    "route": "`ip monitor route` shows it happen: look for whatever else manages routes here, and make that stop",
    "unreachable": "`ip monitor route` shows it happen: look for whatever else manages routes here, and make that stop",
    "firewall": "look for firewalld, ufw or a script that flushes rules, and make that stop",
}
_ORDER: Final = (Level.BROKEN, Level.DEGRADED, Level.OK)


def findings(status: Status) -> tuple[Finding, ...]:
    """Return everything that is worth telling, worst first."""
    wanted = [cidr for cidr in status.cidrs if cidr.intent.phase is Phase.PRESENT]
    up = {link.name for link in status.links if link.state == "up"}
    dead = bool(wanted) and not any(_works(cidr, up) for cidr in wanted)
    found = [*_machine(status, dead), *_links(status, wanted, dead), *_cloud(status, dead)]
    for cidr in wanted:
        found.extend(_cidr(cidr, status.cloud.error, dead))
    found.extend(_stray(network) for network in status.cloud.strays)
    found.extend(_left(table, network) for table, network in status.cloud.left)
    if dead and not any(each.level is Level.BROKEN for each in found):
        found.append(Finding(Level.DEGRADED, "not-carried-yet", "nothing is carried yet", "wait, and look again"))
    found.extend(_advice(status))
    return tuple(sorted(found, key=lambda each: _ORDER.index(each.level)))  # stable: the order above within a level


def judge(status: Status, found: Sequence[Finding]) -> Verdict:
    """Return the one line, from the findings."""
    wanted = [cidr for cidr in status.cidrs if cidr.intent.phase is Phase.PRESENT]
    up = sum(link.state == "up" for link in status.links)
    ready = sum(cidr.kernel.state is cidr.cloud.state is LayerState.OK for cidr in wanted)
    counts = f"{ready} of {len(wanted)} CIDRs ready, {up} of {len(status.links)} links up"
    if not found:
        return Verdict(Level.OK, counts, "")
    worst = found[0]
    if worst.level is Level.OK:
        return Verdict(worst.level, worst.text, worst.next_step)
    more = sum(each.level is not Level.OK for each in found) - 1
    also = f" (and {more} more)" if more else ""
    return Verdict(worst.level, f"{worst.text}{also}; {counts}", worst.next_step)


def _works(cidr: CidrStatus, up: set[str]) -> bool:
    """Return whether the hosts' packets get there, or soon will: what is not in the cloud yet is on its way."""
    kept = cidr.kernel.state is LayerState.OK and cidr.intent.via in up
    return kept and LayerState.ERROR not in (cidr.cloud.state, cidr.path.state)


def _machine(status: Status, dead: bool) -> Iterator[Finding]:  # noqa: FBT001
    if status.store_problem:
        yield Finding(Level.DEGRADED, "store-unavailable", status.store_problem, _STORE)
    if status.kernel_problem:
        level = Level.BROKEN if dead else Level.DEGRADED
        yield Finding(level, "kernel", f"the kernel is not as wanted: {status.kernel_problem}", _KERNEL)
    yield from map(_meddling, status.meddling)


def _meddling(found: Repeated) -> Finding:
    text = (
        f"somebody keeps changing what is set here: {found.kind} ({found.what}) was put right"
        f" {found.count} times in the last minute"
    )
    step = _WHO.get(found.kind, "find the other program that changes it, and make that stop")
    return Finding(Level.DEGRADED, "meddling", text, step, found.what)


def _links(status: Status, wanted: Sequence[CidrStatus], dead: bool) -> Iterator[Finding]:  # noqa: FBT001
    used = {cidr.intent.via for cidr in wanted}
    for link in status.links:
        if link.state != "up":
            yield _link(link, Level.BROKEN if dead and link.name in used else Level.DEGRADED)
        elif link.code:
            yield _link(link, Level.DEGRADED)


def _link(link: LinkStatus, level: Level) -> Finding:
    code = link.code or link.state
    why = link.reason or ("no session yet" if link.state == "connecting" else "no reason given")
    step = _LINK.get(code, _TRIED).format(link=link.name)
    state = f"{link.state} ({link.code})" if link.code else link.state
    return Finding(level, f"link-{code}", f"link {link.name} is {state}: {why}", step, link.name)


def _cloud(status: Status, dead: bool) -> Iterator[Finding]:  # noqa: FBT001
    error = status.cloud.error
    if error is not None:
        stops = dead and any(cidr.cloud.state is LayerState.ERROR for cidr in status.cidrs)
        yield Finding(Level.BROKEN if stops else Level.DEGRADED, error.code, error.text, error.next_step)


def _cidr(cidr: CidrStatus, cloud_error: Problem | None, dead: bool) -> Iterator[Finding]:  # noqa: FBT001
    """Tell what keeps one wanted CIDR from working, unless the cloud's own error has said it already."""
    network = str(cidr.intent.network)
    for name, layer in (("kernel", cidr.kernel), ("cloud", cidr.cloud), ("path", cidr.path)):
        said = cloud_error is not None and name == "cloud" and layer.code == cloud_error.code
        if layer.state is LayerState.ERROR and not said:
            step = _CIDR.get(layer.code, "`journalctl -u nexthopd` may say more")
            level = Level.BROKEN if dead else Level.DEGRADED
            yield Finding(level, layer.code or name, f"{network} ({name}): {layer.detail}", step, network)


def _stray(network: Network) -> Finding:
    text = f"the cloud sends {network} here by an entry with our mark, but nobody asked for it"
    step = f"`nexthop cidr add {network}` to carry it, or `nexthop stray rm {network}` to remove the entry"
    return Finding(Level.DEGRADED, "stray-entry", text, step, str(network))


def _left(table: str, network: Network) -> Finding:
    text = f"{table} is not programmed any more, and still sends {network} here by our entry"
    step = (
        f'add "{table}" to [cloud] route_tables again, or remove the entry in the cloud\'s console; '
        f"`nexthop cidr rm {network}` removes it, too"
    )
    return Finding(Level.DEGRADED, "left-behind", text, step, str(network))


def _advice(status: Status) -> Iterator[Finding]:
    """Tell what to do first on a fresh machine, as long as nothing says that it is none."""
    if status.store_problem:
        return
    if not status.links:
        step = "`nexthop link join NAME` takes a token from the far end"
        yield Finding(Level.OK, "no-link", "there is no link yet", step)
    if not status.cidrs:
        step = "`nexthop cidr add 10.244.0.0/16`, or whatever lies behind the link"
        yield Finding(Level.OK, "no-cidr", "there is no CIDR yet", step)
