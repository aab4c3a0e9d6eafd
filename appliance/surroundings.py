"""What the guard needs to know, gathered from those who know it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from appliance.guard import Facts

if TYPE_CHECKING:
    from appliance.intent import IntentStore
    from appliance.kernel.state import Device
    from appliance.links import Links
    from cloud.provider import Vpc


async def gather_facts(
    store: IntentStore, links: Links, devices: Callable[[], Awaitable[Mapping[str, Device]]], vpc: Vpc | None
) -> Facts:
    """Return the facts as they are now; intents and links are read last, after every wait.

    Raises `StoreUnavailable`, `KernelError`, or `OSError` where the links' directory cannot be read.
    """
    servers, unresolved = await links.servers()
    found = await devices()
    return Facts(
        vpc=vpc,
        tunnel_servers=servers,
        unresolved=unresolved,
        tunnel_subnets=frozenset(
            address.network for device in found.values() if device.ours for address in device.addresses
        ),
        local_networks=frozenset(
            (device.name, address.network)
            for device in found.values()
            if not device.ours
            for address in device.addresses
        ),
        intents=store.all(),
        links=frozenset(link.name for link in links.all()),
    )
