"""What one pass over the kernel is to do, from what it has seen and what earlier ones remember. Pure.

Remembered is what the kernel stops showing as soon as it is gone, and what tells a repair from a first installation.
Everything else is read anew in each pass.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from appliance.desired import Desired, by_destination, desired, installed, rules, tunnel_subnets
from appliance.kernel import host
from appliance.kernel.rules import Rules
from appliance.kernel.state import ALIAS, KernelState, Network, Route
from appliance.links import DEVICE_PREFIX
from appliance.model import Intent
from appliance.reconcile import ForwardStep, Installed, forward_step
from appliance.status import LayerState


@dataclass(frozen=True, slots=True)
class Seen:
    """What is asked for, which links there are (`devices`: by link), and what the kernel holds."""

    intents: tuple[Intent, ...]
    devices: Mapping[str, str]
    state: KernelState


@dataclass(frozen=True, slots=True)
class Memory:
    """What passes leave behind.

    `vpc`: the device towards the VPC; `subnets`: the tunnels' own, by link; `ours`: routes whose absence is somebody
    else's doing; `rules`: what the firewall held last, None before the first writing; `tended`: the devices whose
    sysctls were looked at; `forwards`: whether there was a time when everything was there that packets need.
    """

    vpc: str | None = None
    subnets: Mapping[str, frozenset[Network]] = field(default_factory=dict)
    ours: frozenset[Route] = frozenset()
    rules: Rules | None = None
    tended: frozenset[str] = frozenset()
    forwards: bool = False

    def seeing(self, seen: Seen) -> Memory:
        """Return it with what was seen just now, which may be gone by the next look."""
        known = {**self.subnets, **tunnel_subnets(seen.devices, seen.state)}
        return replace(
            self,
            vpc=host.vpc_device(seen.state) if seen.state.default_device or self.vpc is None else self.vpc,
            subnets={link: found for link, found in known.items() if link in seen.devices},
        )

    def after(self, want: Desired, state: KernelState) -> Memory:
        """Return it as of the end of a pass that wanted `want` and left `state`."""
        # What waits for its device to come back is ours still: to route to it again will be a repair.
        waiting = {network for network, layer in want.blocked.items() if layer.state is LayerState.PENDING}
        known = self.ours | state.routes
        return replace(self, ours=frozenset(r for r in known if r in want.wanted or r.destination in waiting))


@dataclass(frozen=True, slots=True)
class Limits:
    """`v6_fault`: why the firewall can hold no rule for IPv6; `inbound`: see `appliance.desired.desired`."""

    v6_fault: str | None = None
    inbound: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do: `orphans` are devices to delete, `going` the CIDRs to take out, `want` what shall be there at last.

    `rules`: what the firewall has to hold until what goes is gone. `installed`: how much of each CIDR was there.
    """

    orphans: tuple[str, ...]
    going: tuple[Network, ...]
    rules: Rules
    want: Desired
    installed: Mapping[Network, Installed]


def decide(memory: Memory, seen: Seen, limits: Limits) -> Decision:
    """Return what a pass is to do. `memory`: as of what is seen (`Memory.seeing`)."""
    there = by_destination(seen.state.routes)
    found = {intent.network: installed(intent, seen.devices, there) for intent in seen.intents}
    keep = {ForwardStep.KEEP, ForwardStep.ADD}
    going = tuple(i for i in seen.intents if forward_step(i.phase, found[i.network]) not in keep)
    leaving = {intent.network for intent in going}
    staying = [intent for intent in seen.intents if intent.network not in leaving]
    subnets, vpc = memory.subnets, memory.vpc
    want = desired(staying, seen.devices, subnets, seen.state, vpc, limits.v6_fault, limits.inbound)
    # What is about to go keeps its rules until its route is gone.
    lingering = [intent for intent in going if found[intent.network] is not Installed.NONE]
    until = want.rules
    if lingering:
        carried = [*staying, *lingering]
        until = rules(carried, seen.devices, vpc, limits.v6_fault, subnets=subnets, inbound=limits.inbound)
    return Decision(_orphans(seen), tuple(intent.network for intent in going), until, want, found)


def _orphans(seen: Seen) -> tuple[str, ...]:
    """Return the devices of links that were removed: a persistent one outlives its gtun."""
    return tuple(
        name
        for name, device in seen.state.devices.items()
        if device.ours
        and name == DEVICE_PREFIX + device.alias.removeprefix(ALIAS)
        and device.alias.removeprefix(ALIAS) not in seen.devices
    )
