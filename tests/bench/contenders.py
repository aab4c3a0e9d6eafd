"""Who takes part. Pure.

A mode of ours is a pair of option tables that are laid over the link's file and over gtund's, so a new mode is one more
entry of `OURS`. Peers are what Debian packages; `PACKAGES` is what has to be installed for a run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PACKAGES: Final = ("ethtool", "iperf3", "openvpn", "wireguard-go", "wireguard-tools")
"""Debian packages of the benchmark alone, beside those of the lab. None of their services may be started."""


class Kind(Enum):
    """What carries the packets between the appliance and the far end."""

    NONE = "none"
    OURS = "ours"
    WIREGUARD = "wireguard"
    OPENVPN = "openvpn"


Option = str | int | bool


@dataclass(frozen=True, slots=True)
class Contender:
    """One way from the host to the pod.

    `link`, `server` and `tunnel` are laid over the sections of those names in our configuration files. `congestion` is
    the hosts' congestion control; `only` names the beginnings of the sections that it takes part in, none: all.
    """

    key: str
    title: str
    kind: Kind
    link: Mapping[str, Option] = field(default_factory=dict)
    server: Mapping[str, Option] = field(default_factory=dict)
    tunnel: Mapping[str, Option] = field(default_factory=dict)
    congestion: str = "cubic"
    only: tuple[str, ...] = ()

    @property
    def peer(self) -> bool:
        """Tell whether it is somebody else's tunnel."""
        return self.kind in (Kind.WIREGUARD, Kind.OPENVPN)

    def takes_part(self, section: str) -> bool:
        """Tell whether it is measured there."""
        return not self.only or section.startswith(self.only)


NONE: Final = Contender("none", "no tunnel", Kind.NONE)
BBR: Final = Contender("none-bbr", "no tunnel, BBR at the hosts", Kind.NONE, congestion="bbr", only=("wan",))

_SHORT: Final = ("fast", "plain", "clients")

OURS: Final = (
    Contender("stream", "stream", Kind.OURS, link={"channel": "stream"}, only=_SHORT),
    Contender(
        "stream-1", "stream, 1 connection", Kind.OURS, link={"channel": "stream", "connections": 1}, only=("fast",)
    ),
    Contender("datagram", "datagram", Kind.OURS, link={"channel": "datagram"}, only=("fast", "plain")),
    Contender("hybrid", "hybrid", Kind.OURS, only=("fast", "wan")),
    # Here a new flow has to share its connection with the bulk flow.
    Contender("hybrid-1", "hybrid, 1 connection", Kind.OURS, link={"connections": 1}, only=("wan-0",)),
)

PEERS: Final = (
    Contender("wireguard-go", "wireguard-go", Kind.WIREGUARD),
    Contender("openvpn", "OpenVPN", Kind.OPENVPN),
)

ALL: Final = (NONE, BBR, *OURS, *PEERS)


def chosen(names: Iterable[str]) -> tuple[Contender, ...]:
    """Return the contenders of these names, all where none is named. What a ratio is taken of always takes part."""
    wanted = {contender.key for contender in ALL} & set(names)
    if not wanted:
        return ALL
    return tuple(one for one in ALL if one.key in wanted or one.kind is Kind.NONE)
