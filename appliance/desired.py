"""What the kernel should hold, computed from the intents, the links and what is there. Pure.

Behind each CIDR's route to its TUN device stands an ``unreachable`` one of higher metric, and so it does for each
tunnel's own subnet: a link that is down answers with an ICMP error at once, where the packet would otherwise leave by
the default route, back into the VPC that sent it. That subnet has a route of ours to its device, too, behind the one
that the kernel makes: the kernel makes it with the address and never again, should a network manager flush all routes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from appliance.kernel.rules import Rules
from appliance.kernel.state import TUNNEL_METRIC, UNREACHABLE_METRIC, KernelState, Network, Route, route_of
from appliance.model import Intent
from appliance.options import AUTO
from appliance.reconcile import Installed
from appliance.status import Layer, LayerState


@dataclass(frozen=True, slots=True)
class Desired:
    """`routes`: to install, what answers "unreachable" first. `blocked`: why a CIDR gets no route to a tunnel yet."""

    routes: tuple[Route, ...]
    rules: Rules
    blocked: Mapping[Network, Layer]
    wanted: frozenset[Route] = field(init=False)  # `routes`, to look one up
    through: frozenset[Network] = field(init=False)  # the CIDRs that are to have a route to a tunnel

    def __post_init__(self) -> None:
        object.__setattr__(self, "wanted", frozenset(self.routes))
        object.__setattr__(self, "through", frozenset(r.destination for r in self.routes if r.device is not None))


def tunnel_route(intent: Intent, devices: Mapping[str, str]) -> Route | None:
    """Return the route that carries this CIDR, None where there is no such link. `devices`: by link name."""
    device = devices.get(intent.via)
    return None if device is None else route_of(intent.network, device, TUNNEL_METRIC)


def unreachable(network: Network) -> Route:
    """Return the route that answers where the tunnel's is not there."""
    return route_of(network, None, UNREACHABLE_METRIC)


def desired(
    carried: Iterable[Intent],
    devices: Mapping[str, str],
    subnets: Mapping[str, Iterable[Network]],
    state: KernelState,
    vpc: str | None,
    v6_fault: str | None = None,
    inbound: Collection[str] = (),
) -> Desired:
    """Work out the whole.

    `devices`: device by link name; `subnets`: the tunnels' own, by link; `vpc`: the device towards the VPC; `v6_fault`:
    why the firewall can hold no rule for IPv6; `inbound`: the links whose far end may begin connections to the VPC.
    """
    own = [(devices[link], subnet) for link, found in subnets.items() for subnet in sorted(found, key=str)]
    behind: list[Route] = [unreachable(subnet) for _, subnet in own]
    through: list[Route] = [route_of(subnet, name, TUNNEL_METRIC) for name, subnet in own if _is_up(name, state)]
    blocked: dict[Network, Layer] = {}
    carried = tuple(carried)
    obstacles = {
        (link, version): _obstacle(link, version, devices, state, vpc, v6_fault)
        for link, version in {(intent.via, intent.network.version) for intent in carried}
    }
    for intent in carried:
        behind.append(unreachable(intent.network))
        if (why := obstacles[intent.via, intent.network.version]) is not None:
            blocked[intent.network] = why
        elif (route := tunnel_route(intent, devices)) is not None:
            through.append(route)
    wanted = rules(carried, devices, vpc, v6_fault, subnets=subnets, inbound=inbound)
    return Desired((*behind, *through), wanted, blocked)


def _is_up(name: str, state: KernelState) -> bool:
    device = state.devices.get(name)
    return device is not None and device.up


def _obstacle(
    link: str, version: int, devices: Mapping[str, str], state: KernelState, vpc: str | None, v6_fault: str | None
) -> Layer | None:
    """Return why CIDRs of this IP version cannot go via this link now; None where they can."""
    if version == 6 and v6_fault is not None:
        return Layer(LayerState.ERROR, f"the firewall cannot carry IPv6 here: {v6_fault}", "no-ipv6-firewall")
    name = devices.get(link)
    if name is None:
        return Layer(LayerState.ERROR, f"there is no link named {link}", "link-unknown")
    if vpc is None:
        return Layer(LayerState.ERROR, "no default route shows which device leads to the VPC", "no-default-route")
    device = state.devices.get(name)
    if device is None:
        return Layer(LayerState.PENDING, f"the device {name} is not there yet: its gtun makes it", "no-device")
    if not device.up:
        return Layer(LayerState.PENDING, f"the device {name} is down: its gtun brings it up", "device-down")
    versions = {address.version for address in device.addresses if not address.is_link_local}
    if 4 not in versions:  # every tunnel has one
        # Masquerading would take another device's address, and the connection would keep it for good.
        return Layer(LayerState.PENDING, f"the device {name} has no address: its gtun gets one", "no-address")
    if version not in versions:
        text = f"the far end of {link} serves no IPv6: {name} has no IPv6 address"
        return Layer(LayerState.ERROR, text, "no-ipv6")
    return None


def rules(
    carried: Iterable[Intent],
    devices: Mapping[str, str],
    vpc: str | None,
    v6_fault: str | None = None,
    *,
    subnets: Mapping[str, Iterable[Network]] = MappingProxyType({}),
    inbound: Collection[str] = (),
) -> Rules:
    """Return the firewall's part. It speaks of a device by name, whether it is there or not. See `desired`."""
    links = frozenset(devices.values())
    own = frozenset((subnet, devices[link]) for link, found in subnets.items() for subnet in found)
    guard = Rules(guarded=links, own=own, six=v6_fault is None and bool(links))
    if vpc is None:
        return guard
    usable = [
        (intent, devices[intent.via])
        for intent in carried
        if intent.via in devices and (intent.network.version == 4 or v6_fault is None)
    ]
    return replace(
        guard,
        masquerade=frozenset((intent.network, device) for intent, device in usable if intent.snat),
        plain=frozenset((intent.network, device) for intent, device in usable if not intent.snat),
        forward=links,
        clamp=links,
        vpc=vpc,
        mss=frozenset((intent.network, device, intent.mss) for intent, device in usable if intent.mss != AUTO),
        inbound=frozenset(device for link, device in devices.items() if link in inbound),
    )


def tunnel_subnets(devices: Mapping[str, str], state: KernelState) -> dict[str, frozenset[Network]]:
    """Return, by link, the networks on its device; nothing for a link whose device has no address yet."""
    found = {}
    for link, name in devices.items():
        device = state.devices.get(name)
        addresses = () if device is None else device.addresses
        networks = frozenset(
            address.network
            for address in addresses
            if not address.is_link_local and address.network.prefixlen < address.max_prefixlen
        )
        if networks:
            found[link] = networks
    return found


def by_destination(routes: Iterable[Route]) -> Mapping[Network, Sequence[Route]]:
    """Return the routes by where they lead, so that a thousand CIDRs do not each look at all routes."""
    found: dict[Network, list[Route]] = {}
    for route in routes:
        found.setdefault(route.destination, []).append(route)
    return found


def installed(intent: Intent, devices: Mapping[str, str], routes: Mapping[Network, Sequence[Route]]) -> Installed:
    """Return how much of this CIDR is in the kernel. `routes`: `by_destination`."""
    there = {(route.device, route.metric) for route in routes.get(intent.network, ())}
    if not there:
        return Installed.NONE
    whole = {(devices.get(intent.via, ""), TUNNEL_METRIC), (None, UNREACHABLE_METRIC)} <= there
    return Installed.WHOLE if whole else Installed.PART
