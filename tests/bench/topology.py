"""The benchmark's network: one host and one pod, and between them a path of its own for every contender.

             .10 172.18.N.0/24 .1         .10 198.18.N.0/24 .1     .1 198.19.N.0/24 .10      .1 10.244.N.0/24 .20
    host to-N -------------- lan near-KEY wan ------------ (line) ------------ wan far-KEY pods ------------- eth-N pod

All paths are up at once and only one of them carries traffic at a time, so going from one contender to the next is no
more than another address, and no contender's NAT or connection tracking slows down another's. The line is one router,
or, where `delay` is asked for, two routers with a machine between them in which tests.lab.wan relays frames.

`near-KEY` is the appliance, `far-KEY` the machine where gtund or a peer's other end runs. Every machine on the way also
has the routes for plain forwarding: that is the path without a tunnel.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from tests.lab import ground
from tests.lab.space import Space

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_MTU: Final = 1500


@dataclass(frozen=True, slots=True)
class Path:
    """One contender's addresses; `number` is N in the drawing."""

    key: str
    number: int

    @property
    def near(self) -> str:
        """The appliance's machine."""
        return f"near-{self.key}"

    @property
    def far(self) -> str:
        """The far end's machine."""
        return f"far-{self.key}"

    @property
    def near_address(self) -> str:
        """Where the far end finds the appliance."""
        return f"198.18.{self.number}.10"

    @property
    def far_address(self) -> str:
        """Where the appliance finds the far end."""
        return f"198.19.{self.number}.10"

    @property
    def pods(self) -> str:
        """The network to reach."""
        return f"10.244.{self.number}.0/24"

    @property
    def pod(self) -> str:
        """The pod in it."""
        return f"10.244.{self.number}.20"


@dataclass(frozen=True, slots=True)
class End:
    """One end of a cable."""

    machine: str
    device: str
    address: str


Cable = tuple[End, End]
Route = tuple[str, str, str]
"""Machine, destination, gateway."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A network on paper."""

    machines: tuple[str, ...]
    cables: tuple[Cable, ...]
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class Net:
    """A network that is up; `net["host"]` is a machine of it. What `start` started ends with it."""

    lab: str
    spaces: Mapping[str, Space]
    paths: Mapping[str, Path]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def __getitem__(self, name: str) -> Space:
        return self.spaces[name]

    @classmethod
    @contextlib.contextmanager
    def open(cls, keys: Sequence[str], *, offloads: bool = True, delay: bool = False) -> Iterator[Self]:
        """Build a network with a path for each of `keys`; take it down, and all that runs in it, at the end."""
        lab = ground.claim()
        try:
            paths = {key: Path(key, number) for number, key in enumerate(keys, 1)}
            net = cls(lab, build(lab, keys, offloads=offloads, delay=delay), paths)
            try:
                yield net
            finally:
                for process in net.processes:
                    end(process)
        finally:
            ground.release(lab)

    def start(self, space: Space, label: str, *argv: str) -> subprocess.Popen[str]:
        """Start a program that stays; what it prints is in LAB/log/LABEL.log."""
        process = space.start(label, *argv)
        self.processes.append(process)
        return process


def end(process: subprocess.Popen[str]) -> None:
    """End a program at once, and wait until it has."""
    process.kill()
    process.wait()


def draw(keys: Sequence[str], *, delay: bool) -> Plan:
    """Return the plan for these contenders."""
    paths = [Path(key, number) for number, key in enumerate(keys, 1)]
    west, east = ("west", "east") if delay else ("line", "line")
    machines = ["host", "pod", *(("west", "delay", "east") if delay else ("line",))]
    cables: list[Cable] = []
    routes: list[Route] = []
    for path in paths:
        n = path.number
        machines += [path.near, path.far]
        cables += [
            (End("host", f"to-{n}", f"172.18.{n}.10/24"), End(path.near, "lan", f"172.18.{n}.1/24")),
            (End(path.near, "wan", f"{path.near_address}/24"), End(west, f"near-{n}", f"198.18.{n}.1/24")),
            (End(east, f"far-{n}", f"198.19.{n}.1/24"), End(path.far, "wan", f"{path.far_address}/24")),
            (End(path.far, "pods", f"10.244.{n}.1/24"), End("pod", f"eth-{n}", f"{path.pod}/24")),
        ]
        routes += [
            ("host", path.pods, f"172.18.{n}.1"),
            (path.near, "default", f"198.18.{n}.1"),
            (path.far, "default", f"198.19.{n}.1"),
            ("pod", f"172.18.{n}.0/24", f"10.244.{n}.1"),
            (west, f"172.18.{n}.0/24", path.near_address),
            (east, path.pods, path.far_address),
        ]
    if delay:
        cables += [
            (End("west", "line", "203.0.113.1/24"), End("delay", "left", "")),
            (End("east", "line", "203.0.113.2/24"), End("delay", "right", "")),
        ]
        routes += [("west", "default", "203.0.113.2"), ("east", "default", "203.0.113.1")]
    return Plan(tuple(machines), tuple(cables), tuple(routes))


def birth(plan: Plan, machine: str, full_name: Mapping[str, str]) -> str:
    """Return the lines for ``ip -batch`` that make the cables whose first end is here."""
    return "".join(
        f"link add {one.device} type veth peer name {other.device} netns {full_name[other.machine]}\n"
        for one, other in plan.cables
        if one.machine == machine
    )


def settle(plan: Plan, machine: str) -> str:
    """Return the lines for ``ip -batch`` that give a machine its addresses and routes."""
    lines = ["link set lo up"]
    for end in (end for cable in plan.cables for end in cable if end.machine == machine):
        if end.address:
            lines.append(f"address add {end.address} dev {end.device}")
        lines.append(f"link set {end.device} mtu {_MTU} up")
    lines += [f"route add {destination} via {via}" for owner, destination, via in plan.routes if owner == machine]
    return "\n".join(lines) + "\n"


# Kernel defaults, written out: a machine's own settings are inherited by its namespaces. What one flow has learnt about
# the path must not help or hurt the next one, so no metrics are kept. The congestion control is each program's to set:
# a namespace may only choose among those that the machine allows everybody.
_HOST: Final = {
    "net/ipv4/tcp_wmem": "4096 16384 4194304",
    "net/ipv4/tcp_rmem": "4096 131072 6291456",
    "net/ipv4/tcp_no_metrics_save": "1",
}
_ROUTER: Final = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
}


def build(lab: str, keys: Sequence[str], *, offloads: bool, delay: bool) -> Mapping[str, Space]:
    """Make the machines and cables in `lab`.

    Without `offloads` no device segments or merges, so packets come as from a plain NIC. With `delay` the relay has
    still to be started.
    """
    plan = draw(keys, delay=delay)
    spaces = {name: Space(name, ground.create(lab, name), ground.RUN / lab / "log") for name in plan.machines}
    full = {name: space.full for name, space in spaces.items()}
    for name, space in spaces.items():
        _set(space, _HOST if name in ("host", "pod") else _ROUTER)
        space.run("ip", "-batch", "-", stdin=birth(plan, name, full))
    for name, space in spaces.items():
        space.run("ip", "-batch", "-", stdin=settle(plan, name))
    if not offloads:
        _bare(spaces, [end for cable in plan.cables for end in cable])
    elif delay:
        # The relay must see frames as they would be on a line: no longer than the MTU, with their checksums.
        _bare(spaces, [End("west", "line", ""), End("east", "line", "")])
    return spaces


def _set(space: Space, settings: Mapping[str, str]) -> None:
    space.shell("".join(f"echo '{value}' > /proc/sys/{key}\n" for key, value in settings.items()))


def _bare(spaces: Mapping[str, Space], ends: Iterable[End]) -> None:
    """Switch off what makes packets larger than the MTU, in both directions, and checksums left to the hardware."""
    off = ("tx", "off", "tso", "off", "gso", "off", "gro", "off", "tx-udp-segmentation", "off")
    for end in ends:
        spaces[end.machine].run("ethtool", "-K", end.device, *off)
