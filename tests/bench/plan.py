"""How long everything is measured: the quick run, to see at a glance, and the full one, to quote. Pure.

All times are in seconds. The full run has five rounds where a ratio is quoted, and three on the long line, where each
takes a minute for each who takes part; peers go once over the long line, since nothing there is compared with them
round by round. It takes fifty minutes, half an hour of it on the long line.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

FAST: Final = "fast"
PLAIN: Final = "plain"
WAN: Final = "wan"
CLIENTS: Final = "clients"
WHOLE: Final = "whole"
SECTIONS: Final = (FAST, PLAIN, WAN, CLIENTS, WHOLE)


def wan(loss: float) -> str:
    """Return the name of the long line's section with a probability of loss."""
    return f"{WAN}-{loss * 100:g}"


@dataclass(frozen=True, slots=True)
class Local:
    """One topology without delay: which metrics, for how long each, how many rounds."""

    rounds: int
    tcp: tuple[str, ...]
    udp: tuple[str, ...]
    tcp_seconds: float
    udp_seconds: float = 0.0
    rr_seconds: float = 0.0
    pings: int = 0

    @property
    def expected(self) -> tuple[str, ...]:
        """Return the metrics that each round of each contender should give."""
        cpu = tuple(f"cpu_{key.removeprefix('tcp1_')}" for key in self.tcp if key.startswith("tcp1_"))
        return (*self.tcp, *self.udp, *(("rr",) if self.rr_seconds else ()), *(("rtt",) if self.pings else ()), *cpu)


@dataclass(frozen=True, slots=True)
class Long:
    """The long line. `losses` are probabilities; `early` and `late` are the windows in which goodput is taken.

    Peers and the path without a tunnel, whose keys are `others`, have `peer_rounds` at the first loss, and else none.
    """

    losses: tuple[float, ...]
    rounds: int
    peer_rounds: int
    others: tuple[str, ...]
    early: tuple[float, float]
    late: tuple[float, float]
    idle_pings: int
    idle_connects: int

    def only(self, names: Collection[str]) -> Long:
        """Return the plan for the losses whose sections are named, all of them where none is."""
        losses = tuple(loss for loss in self.losses if wan(loss) in names)
        return replace(self, losses=losses) if losses else self


@dataclass(frozen=True, slots=True)
class Whole:
    """The whole appliance: how many first packets, how many CIDRs, and how long a flow beside requests."""

    first_packets: int
    cidrs: int
    flow_seconds: float
    load_seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """One whole run. `clients`: with how many clients gtund's memory is read; `without`: who is left out."""

    name: str
    fast: Local
    plain: Local
    wan: Long
    clients: tuple[int, ...]
    whole: Whole
    without: frozenset[str] = frozenset()


_TCP: Final = ("tcp1_up", "tcp1_down", "tcp8_up", "tcp8_down")
_UDP: Final = ("udp64", "udp1400")

_OTHERS: Final = ("none", "wireguard-go", "openvpn")

FULL: Final = Plan(
    "full",
    fast=Local(5, _TCP, _UDP, tcp_seconds=3, udp_seconds=1.5, rr_seconds=1, pings=100),
    plain=Local(5, _TCP[:2], (), tcp_seconds=3),
    wan=Long((0.01, 0.0, 0.001, 0.03), 3, 1, _OTHERS, early=(0, 10), late=(20, 50), idle_pings=15, idle_connects=9),
    clients=(1, 10, 50),
    whole=Whole(first_packets=15, cidrs=1000, flow_seconds=5, load_seconds=30),
)

QUICK: Final = Plan(
    "quick",
    fast=Local(3, _TCP[:3], _UDP[:1], tcp_seconds=1, udp_seconds=0.7, rr_seconds=0.5, pings=60),
    plain=Local(3, _TCP[:1], (), tcp_seconds=1),
    wan=Long((0.01,), 1, 0, _OTHERS, early=(0, 5), late=(8, 15), idle_pings=5, idle_connects=3),
    clients=(1, 10),
    whole=Whole(first_packets=5, cidrs=200, flow_seconds=2, load_seconds=5),
    without=frozenset({"stream-1"}),
)
