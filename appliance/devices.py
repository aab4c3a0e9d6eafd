"""Which tunnel devices were lost and are back. Pure.

gtun owns its device, makes it anew when somebody has deleted it, and counts what it repairs on it. What it cannot count
is its own absence meanwhile, so a new device is told by its index. One that was never there, or whose link is gone, is
no drift.
"""

from __future__ import annotations

from collections.abc import Mapping

from appliance.kernel.state import KernelState


class Tunnels:
    """The devices as they were seen last, by link."""

    def __init__(self) -> None:
        self._indexes: dict[str, int] = {}

    def look(self, devices: Mapping[str, str], state: KernelState) -> tuple[str, ...]:
        """Return the names of devices that took the place of one that was there. `devices`: by link name."""
        self._indexes = {link: index for link, index in self._indexes.items() if link in devices}
        back = []
        for link, name in devices.items():
            device = state.devices.get(name)
            if device is not None:
                if self._indexes.setdefault(link, device.index) != device.index:
                    back.append(name)
                self._indexes[link] = device.index
        return tuple(back)
