"""One pass over the kernel: make it hold what is wanted, in an order in which nothing leaks and nothing is missing.

Adding: firewall, then what answers "unreachable", then the tunnel's route, then all is read back. Only then may the
machine forward, if it does not yet: the cloud sends packets to one that boots, too, and what nothing of ours holds
would leave by eth0. Removing: the other way round, after the caller was told what is carried from now on. What is to be
done says `appliance.decide`; here it is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from appliance.decide import Decision, Limits, Memory, Seen, decide
from appliance.desired import Desired, by_destination, installed, unreachable
from appliance.devices import Tunnels
from appliance.kernel import host
from appliance.kernel.choose import Chosen
from appliance.kernel.firewall import FirewallError
from appliance.kernel.rules import Rules
from appliance.kernel.state import DeviceGone, Drift, KernelState, Network, Refused, Route
from appliance.model import Intent
from appliance.reconcile import ForwardStep, Installed, forward_step, plan
from appliance.status import Layer, LayerState

log = logging.getLogger(__name__)

_NAMED = 5  # CIDRs in one line of history


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


Sysctls = Callable[[str | None, Collection[str], bool, bool], Sequence[Drift]]
"""(device towards the VPC, link devices, whether an IPv6 CIDR is carried, whether the machine may forward as yet) ->
what was not as wanted, and is mended."""


def keep_sysctls(
    vpc: str | None,
    devices: Collection[str],
    v6: bool,  # noqa: FBT001
    forwards: bool,  # noqa: FBT001
    *,
    conntrack: int = 0,
) -> Sequence[Drift]:
    """Put this machine's sysctls right. `conntrack`: see `host.wanted`."""
    return host.keep(host.wanted(vpc, sorted(devices), v6=v6, conntrack=conntrack, forwards=forwards))


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
    _installed: dict[Network, Installed]
    trouble: list[str] = field(default_factory=list)
    refused: dict[Network, Layer] = field(default_factory=dict)

    @classmethod
    def begun(cls, seen: Seen, decision: Decision) -> Self:
        """Return one in which nothing was done yet."""
        return cls(seen.intents, seen.devices, seen.state, decision.want, dict(decision.installed))

    def saw(self, state: KernelState) -> None:
        """Take what was read anew."""
        changed = {route.destination for route in state.routes ^ self.state.routes}
        there = by_destination(route for route in state.routes if route.destination in changed)
        self.state = state
        for intent in self.intents:
            if intent.network in changed:
                self._installed[intent.network] = installed(intent, self.devices, there)

    def installed(self, intent: Intent) -> Installed:
        """Return how much of a CIDR was in the kernel when that was read last."""
        return self._installed[intent.network]

    def step(self, intent: Intent) -> ForwardStep:
        """Decide on one CIDR, from what was read last."""
        return forward_step(intent.phase, self.installed(intent))

    def carries(self, intent: Intent) -> bool:
        """Tell whether all that carries this CIDR is wanted and there."""
        return self.installed(intent) is Installed.WHOLE and intent.network in self.want.through

    def carrying(self) -> frozenset[Network]:
        """Return the networks of all that it carries."""
        return frozenset(intent.network for intent in self.intents if self.carries(intent))


class Installer:
    """Brings the kernel to what is wanted. Not for two calls at a time."""

    def __init__(
        self,
        routes: KernelRoutes,
        chosen: Chosen,
        sysctls: Sysctls,
        repaired: Callable[..., None],
        inbound: Collection[str] = (),
    ) -> None:
        self._routes = routes
        self._firewall = chosen.firewall  # its calls block: they run in a thread
        self._purgeable = chosen.others
        self._limits = Limits(chosen.v6_fault, inbound)
        self._sysctls = sysctls
        self._repaired = repaired  # told the kind, what it was, and how many where it was more than one
        self._tunnels = Tunnels()
        self._memory = Memory()
        self._last: Pass | None = None
        self._settled: object = None  # what the last pass was given, if that left nothing to do

    async def install(self, intents: tuple[Intent, ...], devices: Mapping[str, str], commit: Commit) -> Pass:
        """Make one pass. `devices`: device by link name. Raises `KernelError`, `OSError`."""
        seen = Seen(intents, devices, await self._routes.observe())
        for name in self._tunnels.look(devices, seen.state):
            self._repaired("device", name)
        self._memory = self._memory.seeing(seen)
        given = (seen, self._memory.vpc, self._memory.subnets)
        if self._last is not None and self._settled == given:
            return await self._look_again(self._last)
        self._settled = None
        decision = decide(self._memory, seen, self._limits)
        now = Pass.begun(seen, decision)
        for name in decision.orphans:
            log.info("deleting %s: its link was removed", name)
            await self._routes.delete_device(name)
        now.trouble += self._mend_host(now)
        firewalled = await self._set_rules(now, decision.rules)
        added = await self._add(now, firewalled=firewalled)
        if firewalled and not self._memory.forwards:
            self._memory = replace(self._memory, forwards=True, tended=frozenset())  # the first setting is no repair
            now.trouble += self._mend_host(now)
        removed = await self._remove(now, decision.going, commit)
        if removed and firewalled:
            await self._set_rules(now, now.want.rules)
        self._memory = self._memory.after(now.want, now.state)
        self._last = now
        nothing_left = now.state.routes <= now.want.wanted  # what nobody let us remove is tried again
        if firewalled and nothing_left and not (decision.going or added or removed or now.trouble):
            self._settled = given
        return now

    async def _look_again(self, now: Pass) -> Pass:
        """Check what no reading shows, where all else is as a pass left it that had nothing to do."""
        now.trouble = self._mend_host(now)
        await self._set_rules(now, now.want.rules)
        return now

    async def is_off(self) -> bool:
        """Look at what changes without an event, sysctls and firewall; tell whether a pass is needed.

        Sysctls are mended on the spot.
        """
        if self._last is None:
            return False  # the first pass is still to come
        if self._mend_host(self._last):
            return True
        held = self._memory.rules
        return held is None or not await asyncio.to_thread(self._firewall.holds, held)

    def _mend_host(self, now: Pass) -> list[str]:
        """Put the sysctls right; return what could not be. What was wrong at the first look at a device is no drift."""
        devices = set(now.devices.values()) & now.state.devices.keys()
        v6 = any(intent.network.version == 6 for intent in now.intents)
        looked_at = frozenset(devices | {self._memory.vpc or ""})
        stubborn = []
        for drift in self._sysctls(self._memory.vpc, devices, v6, self._memory.forwards):
            if not drift.mended:
                stubborn.append(f"{drift.kind} is {drift.now} and cannot be set to {drift.wanted}")
            elif looked_at <= self._memory.tended:
                self._repaired("sysctl", drift.kind.removeprefix("sysctl "))
        self._memory = replace(self._memory, tended=looked_at)
        return stubborn

    async def _set_rules(self, now: Pass, wanted: Rules) -> bool:
        """Make the firewall hold `wanted`; return whether it does."""
        try:
            known = self._memory.rules
            drifted = known is not None and not await asyncio.to_thread(self._firewall.holds, known)
            as_it_was = known is None and await asyncio.to_thread(self._firewall.holds, wanted)  # by an earlier run
            if drifted or (wanted != known and not as_it_was):
                await asyncio.to_thread(self._firewall.write, wanted)
            if drifted:
                self._repaired("firewall", "rules of ours were gone or changed")
            self._memory = replace(self._memory, rules=wanted)
            while self._purgeable:  # an earlier run's rules in another back-end would still act
                await asyncio.to_thread(self._purgeable[0].purge)
                self._purgeable = self._purgeable[1:]
        except FirewallError as error:
            now.trouble.append(str(error))
            return False
        return True

    async def _add(self, now: Pass, *, firewalled: bool) -> bool:
        """Add what is missing and read back; return whether anything was missing.

        Without our rules only what answers "unreachable": nothing must leak.
        """
        missing = [r for r in plan(now.want.routes, now.state.routes).add if firewalled or r.device is None]
        if not missing:
            return False
        for route in missing:
            try:
                await self._routes.add(route)
            except DeviceGone as error:
                now.refused[route.destination] = Layer(LayerState.PENDING, str(error), "no-device")
            except Refused as error:
                now.refused[route.destination] = Layer(LayerState.ERROR, str(error), "kernel-refused")
                now.trouble.append(str(error))
        now.saw(await self._routes.observe())
        back: dict[str, list[str]] = {}
        for route in missing:
            if route in now.state.routes:
                if route in self._memory.ours:
                    kind = "route" if route.device else "unreachable"
                    back.setdefault(kind, []).append(str(route.destination))
            elif route.destination not in now.refused:
                # Somebody took it away again in between: an error, so the next pass comes soon.
                now.trouble.append(f"the route to {route.destination} was added but is not there")
        for kind, destinations in back.items():  # a line of history for all of a kind: a thousand would take seconds
            self._repaired(kind, _several(destinations), len(destinations))
        return True

    async def _remove(self, now: Pass, going: Collection[Network], commit: Commit) -> bool:
        """Commit, then remove what is too much, what answers "unreachable" last; return whether anything was."""
        too_much = plan(now.want.routes, now.state.routes).remove
        extra = [route for route in too_much if not self._is_kept(now, route, going)]
        if not extra:
            return False
        extra.sort(key=lambda route: (route.device is None, str(route.destination)))
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

    def _is_kept(self, now: Pass, route: Route, going: Collection[Network]) -> bool:
        """Tell whether an "unreachable" may be some tunnel's subnet: one whose device is away does not say."""
        unsure = any(link not in self._memory.subnets for link in now.devices)
        return unsure and route == unreachable(route.destination) and route.destination not in going


def _several(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
