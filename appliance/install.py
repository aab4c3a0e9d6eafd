"""One pass over the kernel: make it hold what is wanted, in an order in which nothing leaks and nothing is missing.

Adding: firewall, then what answers "unreachable", then the tunnel's route, then all is read back. Removing: the other
way round, after the caller was told what is carried from now on. What the last pass left behind is remembered for two
ends only: to tell a repair from a first installation, and for what the kernel stops showing as soon as it is gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from appliance.desired import (
    Desired,
    by_destination,
    desired,
    installed,
    rules,
    tunnel_route,
    tunnel_subnets,
    unreachable,
)
from appliance.devices import Tunnels
from appliance.kernel import host
from appliance.kernel.choose import Chosen
from appliance.kernel.firewall import FirewallError, Rules
from appliance.kernel.state import ALIAS, DeviceGone, Drift, KernelState, Network, Refused, Route
from appliance.links import DEVICE_PREFIX
from appliance.model import Intent
from appliance.reconcile import ForwardStep, Installed, forward_step, plan
from appliance.status import Layer, LayerState

log = logging.getLogger(__name__)


class KernelRoutes(Protocol):
    """What this needs of `appliance.kernel.route.Routes`."""

    async def observe(self) -> KernelState:
        """Read everything."""
        ...

    async def add(self, route: Route) -> None:
        """Install it; one of ours with the same destination and metric gives way."""
        ...

    async def remove(self, route: Route) -> None:
        """Remove it; none there is no error."""
        ...

    async def delete_device(self, name: str) -> None:
        """Delete a device that gtun made; none there is no error."""
        ...

    def changes(self) -> AsyncIterator[None]:
        """Yield after each burst of netlink events."""
        ...


Sysctls = Callable[[str | None, Collection[str], bool], Sequence[Drift]]
"""(device towards the VPC, link devices, whether an IPv6 CIDR is carried) -> what was not as wanted, and is mended."""


def keep_sysctls(vpc: str | None, devices: Collection[str], v6: bool) -> Sequence[Drift]:  # noqa: FBT001
    """Put this machine's sysctls right."""
    return host.keep(host.wanted(vpc, sorted(devices), v6=v6))


Commit = Callable[[frozenset[Network], frozenset[Network]], Awaitable[frozenset[Network] | None]]
"""Told what is carried, and of which networks that nobody asked for as the pass began something is about to be removed.
Returns those that must stay after all; None: nothing at all may be removed. It returns only when everybody who acts on
what is carried knows it: a stale decision would make a black hole."""


@dataclass(slots=True)
class Pass:
    """What one pass has read and decided, and what went wrong in it without keeping the rest from being done."""

    intents: tuple[Intent, ...]
    devices: Mapping[str, str]  # by link
    state: KernelState
    want: Desired
    trouble: list[str] = field(default_factory=list)
    refused: dict[Network, Layer] = field(default_factory=dict)
    there: Mapping[Network, frozenset[Route]] = field(init=False)

    def __post_init__(self) -> None:
        self.saw(self.state)

    def saw(self, state: KernelState) -> None:
        """Take what was read anew."""
        self.state, self.there = state, by_destination(state.routes)

    def step(self, intent: Intent) -> ForwardStep:
        """Decide on one CIDR, from what was read last."""
        return forward_step(intent.phase, installed(intent, self.devices, self.there))

    def carries(self, intent: Intent) -> bool:
        """Tell whether all that carries this CIDR is wanted and there."""
        wanted = tunnel_route(intent, self.devices) in self.want.wanted
        return wanted and installed(intent, self.devices, self.there) is Installed.WHOLE

    def carrying(self) -> frozenset[Network]:
        """Return the networks of all that it carries."""
        return frozenset(intent.network for intent in self.intents if self.carries(intent))


class Installer:
    """Brings the kernel to what is wanted. Not for two calls at a time."""

    def __init__(
        self, routes: KernelRoutes, chosen: Chosen, sysctls: Sysctls, repaired: Callable[[str, str], None]
    ) -> None:
        self._routes = routes
        self._firewall = chosen.firewall  # its calls block: they run in a thread
        self._purgeable = chosen.others
        self._v6_fault = chosen.v6_fault
        self._sysctls = sysctls
        self._repaired = repaired  # told the kind, and what it was
        self._ours: frozenset[Route] = frozenset()
        self._rules: Rules | None = None
        self._vpc: str | None = None
        self._subnets: dict[str, frozenset[Network]] = {}
        self._tended: frozenset[str] = frozenset()
        self._last: Pass | None = None
        self._tunnels = Tunnels()

    async def install(self, intents: tuple[Intent, ...], devices: Mapping[str, str], commit: Commit) -> Pass:
        """Make one pass. `devices`: device by link name. Raises `KernelError`, `OSError`."""
        state = await self._observe(devices)
        now = Pass(intents, devices, state, Desired((), Rules(), {}))
        await self._delete_orphans(now)
        going = [i for i in intents if now.step(i) not in {ForwardStep.KEEP, ForwardStep.ADD}]
        leaving = {i.network for i in going}
        staying = [i for i in intents if i.network not in leaving]
        subnets = [subnet for found in self._subnets.values() for subnet in sorted(found, key=str)]
        now.want = desired(staying, devices, subnets, state, self._vpc, self._v6_fault)
        now.trouble += self._mend_host(now)
        # What is about to go keeps its rules until its route is gone.
        lingering = [i for i in going if installed(i, devices, now.there) is not Installed.NONE]
        at_first = rules([*staying, *lingering], devices, self._vpc, self._v6_fault)
        firewalled = await self._set_rules(now, at_first)
        await self._add(now, firewalled=firewalled)
        removed = await self._remove(now, [i.network for i in going], commit)
        if removed and firewalled:
            await self._set_rules(now, now.want.rules)
        # What waits for its device to come back is ours still: to route to it again will be a repair.
        waiting = {net for net, layer in now.want.blocked.items() if layer.state is LayerState.PENDING}
        known = self._ours | now.state.routes
        self._ours = frozenset(route for route in known if route in now.want.wanted or route.destination in waiting)
        self._last = now
        return now

    async def is_off(self) -> bool:
        """Look at what changes without an event, sysctls and firewall; tell whether a pass is needed.

        Sysctls are mended on the spot.
        """
        if self._last is None:
            return False  # the first pass is still to come
        if self._mend_host(self._last):
            return True
        return await asyncio.to_thread(self._firewall.read) != self._rules

    async def _observe(self, devices: Mapping[str, str]) -> KernelState:
        state = await self._routes.observe()
        if state.default_device is not None or self._vpc is None:
            self._vpc = host.vpc_device(state)
        for name in self._tunnels.look(devices, state):
            self._repaired("device", name)
        known = self._subnets | tunnel_subnets(devices, state)
        self._subnets = {link: found for link, found in known.items() if link in devices}
        return state

    async def _delete_orphans(self, now: Pass) -> None:
        """Delete the devices of links that were removed: a persistent one outlives its gtun."""
        for name, device in now.state.devices.items():
            link = device.alias.removeprefix(ALIAS)
            if device.ours and name == DEVICE_PREFIX + link and link not in now.devices:
                log.info("deleting %s: its link was removed", name)
                await self._routes.delete_device(name)

    def _mend_host(self, now: Pass) -> list[str]:
        """Put the sysctls right; return what could not be. What was wrong at the first look at a device is no drift."""
        devices = set(now.devices.values()) & now.state.devices.keys()
        v6 = any(intent.network.version == 6 for intent in now.intents)
        looked_at = frozenset(devices | {self._vpc or ""})
        stubborn = []
        for drift in self._sysctls(self._vpc, devices, v6):
            if not drift.mended:
                stubborn.append(f"{drift.kind} is {drift.now} and cannot be set to {drift.wanted}")
            elif looked_at <= self._tended:
                self._repaired("sysctl", drift.kind.removeprefix("sysctl "))
        self._tended = looked_at
        return stubborn

    async def _set_rules(self, now: Pass, wanted: Rules) -> bool:
        """Make the firewall hold `wanted`; return whether it does."""
        try:
            found = await asyncio.to_thread(self._firewall.read)
            if found != wanted:
                await asyncio.to_thread(self._firewall.write, wanted)
                if self._rules is not None and found != self._rules:
                    self._repaired("firewall", "rules of ours were gone or changed")
            self._rules = wanted
            while self._purgeable:  # an earlier run's rules in another back-end would still act
                await asyncio.to_thread(self._purgeable[0].purge)
                self._purgeable = self._purgeable[1:]
        except FirewallError as error:
            now.trouble.append(str(error))
            return False
        return True

    async def _add(self, now: Pass, *, firewalled: bool) -> None:
        """Add what is missing and read back. Without our rules only what answers "unreachable": nothing must leak."""
        missing = [r for r in plan(now.want.routes, now.state.routes).add if firewalled or r.device is None]
        if not missing:
            return
        for route in missing:
            try:
                await self._routes.add(route)
            except DeviceGone as error:
                now.refused[route.destination] = Layer(LayerState.PENDING, str(error), "no-device")
            except Refused as error:
                now.refused[route.destination] = Layer(LayerState.ERROR, str(error), "kernel-refused")
                now.trouble.append(str(error))
        now.saw(await self._routes.observe())
        for route in missing:
            if route in now.state.routes:
                if route in self._ours:
                    self._repaired("route" if route.device else "unreachable", str(route.destination))
            elif route.destination not in now.refused:
                # Somebody took it away again in between: an error, so the next pass comes soon.
                now.trouble.append(f"the route to {route.destination} was added but is not there")

    async def _remove(self, now: Pass, going: list[Network], commit: Commit) -> bool:
        """Commit, then remove what is too much, what answers "unreachable" last; return whether anything was."""
        there = sorted(now.state.routes, key=lambda route: (route.device is None, str(route.destination)))
        extra = [route for route in plan(now.want.routes, there).remove if not self._is_kept(now, route, going)]
        if not extra:
            return False
        staying = {intent.network for intent in now.intents} - set(going)
        spared = await commit(now.carrying(), frozenset(route.destination for route in extra) - staying)
        if spared is None:
            return False
        extra = [route for route in extra if route.destination not in spared]
        for route in extra:
            try:
                await self._routes.remove(route)
            except Refused as error:
                now.trouble.append(str(error))
        if extra:
            now.saw(await self._routes.observe())
        return bool(extra)

    def _is_kept(self, now: Pass, route: Route, going: list[Network]) -> bool:
        """Tell whether an "unreachable" may be some tunnel's subnet: one whose device is away does not say."""
        unsure = any(link not in self._subnets for link in now.devices)
        return unsure and route == unreachable(route.destination) and route.destination not in going
