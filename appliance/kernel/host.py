"""What the machine itself must be set to: which devices are which, and the sysctls that forwarding needs.

Every sysctl is read first, written only where it differs, and read back. We set what acts on our own devices and
leave the machine-wide ones alone wherever the kernel lets us (kernel Documentation/networking/ip-sysctl.rst; checked
on 6.18):
- rp_filter: the larger of `all` and the device's counts, so 2 (loose) on the tunnel device is loose whatever `all`
  says. Strict would drop the ICMP errors of far routers outside the CIDR, and with them path MTU discovery and
  traceroute.
- ignore_routes_with_linkdown: either of `all` and the device's is enough (IPv4); in IPv6, writing `all` rewrites
  every device. So the device's alone: without carrier its routes do not count, and the unreachable route behind them
  answers.
- nf_conntrack_max: raised where it is too small, never lowered. Only the machine itself has it, no namespace.
- send_redirects: either is enough to send them, so both go: host and appliance may share a vSwitch, and a redirect
  would teach the host to bypass us. `default` too, for a device that is plugged in later.
- ping_group_range: who may send an echo without a privilege (icmp(7)); nexthopd probes paths so. What systemd's own
  50-default.conf says: everybody.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from appliance.kernel.state import Drift, KernelState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from appliance.kernel.firewall import Firewall
    from appliance.kernel.route import Routes

_ROOT: Final = Path("/proc/sys/net")


@dataclass(frozen=True, slots=True)
class Sysctl:
    """One setting under net/, e.g. ``ipv4/ip_forward``. Slashes, since a device's name may hold dots.

    `at_least`: a number that may be larger, too.
    """

    key: str
    value: str
    at_least: bool = False

    def holds(self, now: str) -> bool:
        """Whether this value will do."""
        return now == self.value or (self.at_least and now.isdecimal() and int(now) >= int(self.value))


def vpc_device(state: KernelState) -> str | None:
    """Return the device towards the VPC: the one with the default route.

    With that route gone (somebody deleted all routes) it is the only device, hardware or one end of a veth, that is up
    and has an IPv4 address; None when there is no single one.
    """
    if state.default_device is not None and not _tunnel(state, state.default_device):
        return state.default_device
    wired = [
        device.name
        for device in state.devices.values()
        if device.up and device.kind in {"", "veth"} and device.name != "lo"
        if any(address.version == 4 for address in device.addresses)
    ]
    return wired[0] if len(wired) == 1 else None


def _tunnel(state: KernelState, name: str) -> bool:
    device = state.devices.get(name)
    return device is not None and device.kind == "tun"


def link_devices(state: KernelState) -> tuple[str, ...]:
    """Return the devices that gtun made, by their alias."""
    return tuple(sorted(device.name for device in state.devices.values() if device.ours))


def wanted(
    vpc: str | None, links: Iterable[str], *, v6: bool = False, conntrack: int = 0, forwards: bool = True
) -> tuple[Sysctl, ...]:
    """Return what must hold to forward between `vpc` and `links`. `v6`: an IPv6 CIDR is proxied.

    `forwards`: whether packets may pass as yet; whether they may is left alone otherwise.
    `conntrack`: how many connections there must be room for, 0 for what the kernel chose. Four of them in a
    bucket are still quick; the kernel's own choice is one (nf_conntrack-sysctl.rst).
    A machine that forwards IPv6 takes no router advertisements unless accept_ra is 2 (ip-sysctl.rst): where the default
    route comes from those, the operator has to set that before.
    """
    # First: writing it resets others to their defaults for a router.
    settings = [Sysctl("ipv4/ip_forward", "1")] if forwards else []
    settings.append(Sysctl("ipv4/ping_group_range", "0 2147483647"))
    settings += [Sysctl(f"ipv4/conf/{name}/send_redirects", "0") for name in ("all", "default", vpc) if name]
    for link in links:
        settings.append(Sysctl(f"ipv4/conf/{link}/rp_filter", "2"))
        settings.append(Sysctl(f"ipv4/conf/{link}/ignore_routes_with_linkdown", "1"))
        settings.append(Sysctl(f"ipv6/conf/{link}/ignore_routes_with_linkdown", "1"))
    if v6 and forwards:
        settings.append(Sysctl("ipv6/conf/all/forwarding", "1"))
    if conntrack:
        settings.append(Sysctl("netfilter/nf_conntrack_max", str(conntrack), at_least=True))
        settings.append(Sysctl("netfilter/nf_conntrack_buckets", str(conntrack // 4), at_least=True))
    return tuple(settings)


def keep(settings: Iterable[Sysctl]) -> tuple[Drift, ...]:
    """Set what is not as wanted and return what that was, each read back: see `Drift.mended`.

    A setting that is not there is none of our trouble: its device is gone, or the kernel has no IPv6. Nothing is raised
    where /proc/sys cannot be written: the drift is returned as not mended.
    """
    return tuple(drift for setting in settings if (drift := _keep(setting)) is not None)


def _keep(setting: Sysctl) -> Drift | None:
    was = _value(setting.key)
    if was is None or setting.holds(was):
        return None
    with contextlib.suppress(OSError):
        (_ROOT / setting.key).write_text(setting.value, encoding="ascii")
    now = _value(setting.key)
    if now is None:
        return None
    return Drift(f"sysctl net/{setting.key}", was, now, now if setting.holds(now) else setting.value)


def _value(key: str) -> str | None:
    try:
        return " ".join((_ROOT / key).read_text(encoding="ascii").split())  # several values stand between tabs
    except OSError:
        return None


async def purge(routes: Routes, firewalls: Iterable[Firewall]) -> tuple[str, ...]:
    """Remove all that is ours from the kernel and return what it was: routes, then rules, then tunnel devices.

    The cloud must have forgotten the CIDRs before. Sysctls stay: others may rely on them by now. Raise `KernelError`.
    """
    state = await routes.observe()
    removed = []
    for route in sorted(state.routes, key=lambda route: route.metric):  # what answers unreachable goes last
        await routes.remove(route)
        removed.append(f"route {route.destination} {route.device or 'unreachable'}")
    for firewall in firewalls:
        before = firewall.writes
        await asyncio.to_thread(firewall.purge)
        if firewall.writes != before:
            removed.append(f"rules in {firewall.name}")
    for name in link_devices(state):
        await routes.delete_device(name)
        removed.append(f"device {name}")
    return tuple(removed)
