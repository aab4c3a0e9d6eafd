"""The data planes of gtund's clients and their devices: made at a client's first session, gone when it is removed."""

from __future__ import annotations

import asyncio
import time
from ipaddress import IPv4Address, IPv4Interface
from typing import Final

from . import tun
from .clients import Client, DamagedClient, Registry, UnknownClient
from .config import Network, TunnelConfig
from .dataplane import DataPlane

_ALIAS: Final = "gtund client "
_SILENT: Final = 10.0
"""Seconds without a word of a data plane, which reports each second, after which something is wrong."""


def device_of(client: str) -> str:
    """Return the name of a client's device on this side."""
    return f"gt-{client}"


class Planes:
    """One data plane for each client that has been here."""

    def __init__(self, registry: Registry, tunnel: TunnelConfig) -> None:
        self._registry, self._tunnel = registry, tunnel
        self._planes: dict[str, DataPlane] = {}
        self._owners: dict[str, Client] = {}

    async def of(self, client: Client) -> DataPlane:
        """Return the client's data plane, started at its first session and kept from then on, once it works.

        What it is handed from then on has to be answered in time. Raise `tun.DeviceRefused`, `tun.DeviceBusy`, or
        `TimeoutError`.
        """
        plane = self._planes.get(client.name)
        if plane is not None and (plane.died or not tun.exists(plane.device)):  # somebody killed it, or deleted that
            del self._planes[client.name]
            await plane.close()
            plane = None
        if plane is None:
            plane = DataPlane(device_of(client.name), gso=self._tunnel.gso)
            await plane.start()
            self._planes[client.name] = plane
        self._owners[client.name] = client
        tun.configure(plane.device, self._addressing(client))
        async with asyncio.timeout(_SILENT):
            await plane.awake()
        return plane

    def clear_up(self) -> None:
        """Remove devices of clients that were removed while no gtund ran; let in what is behind those that are left."""
        for device in tun.with_alias(_ALIAS):
            if device not in {device_of(name) for name in self._registry.names()}:
                tun.destroy(device)
        tun.keep_behind(self._behind())

    def removed(self) -> list[str]:
        """Return the clients that are not registered any more, or whose name now belongs to another."""
        return [
            name
            for name, client in self._owners.items()
            if (known := self._known(name)) is None or known.key_sha256 != client.key_sha256
        ]

    async def forget(self, name: str) -> None:
        """End a client's data plane. Its device goes with it, and the routes over that: no connection lives on."""
        del self._owners[name]
        plane = self._planes.pop(name, None)
        if plane is not None:
            await plane.close()
        tun.destroy(device_of(name))
        tun.keep_behind(self._behind())

    def all_answer(self) -> bool:
        """Return whether each data plane that lives has reported lately."""
        silent_since = time.monotonic() - _SILENT
        return all(plane.died or plane.answered_at > silent_since for plane in self._planes.values())

    async def close(self) -> None:
        """End all data planes; the devices stay."""
        for plane in self._planes.values():
            await plane.close()

    def _addressing(self, client: Client) -> tun.Addressing:
        """Return how the client's device is set up on this side."""
        peer, gateway = IPv4Address(client.address), self._tunnel.gateway
        ours6, peer6 = self._tunnel.six(gateway), self._tunnel.six(peer)
        return tun.Addressing(
            IPv4Interface(f"{gateway}/32"),
            peer,
            self._tunnel.mtu,
            f"{_ALIAS}{client.name}",
            ours6,
            peer6.ip if peer6 else None,
            client.networks,
        )

    def _behind(self) -> list[Network]:
        return [network for client in self._registry.all() for network in client.networks]

    def _known(self, name: str) -> Client | None:
        try:
            return self._registry.get(name)
        except UnknownClient:
            return None
        except DamagedClient:
            return self._owners[name]
