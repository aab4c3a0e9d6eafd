"""What a tunnel costs: processor time and memory of its processes, read from /proc.

A process belongs to a tunnel if it is in the network namespace of one of the tunnel's two machines, so workers and
helpers count without anyone having to name them. The kernel's own work for packets, softirq, belongs to no process and
is read for the whole machine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.lab import ground

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.lab.space import Space

_TICK: Final = os.sysconf("SC_CLK_TCK")
_MIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of processor time since some moment in the past."""

    user: float
    system: float
    softirq: float

    def since(self, before: Times) -> Times:
        """Return what was used between two readings."""
        return Times(self.user - before.user, self.system - before.system, self.softirq - before.softirq)


@dataclass(frozen=True, slots=True)
class Machine:
    """The whole machine's processor time in seconds, over all processors (proc(5), /proc/stat)."""

    busy: float
    idle: float
    steal: float
    softirq: float

    def since(self, before: Machine) -> Machine:
        """Return what was used between two readings."""
        return Machine(
            self.busy - before.busy,
            self.idle - before.idle,
            self.steal - before.steal,
            self.softirq - before.softirq,
        )

    @property
    def share_busy(self) -> float:
        """The part of the time in which a processor did something."""
        return self.busy / max(self.busy + self.idle, 1e-9)

    @property
    def share_stolen(self) -> float:
        """The part of the time that another guest of the hypervisor had."""
        return self.steal / max(self.busy + self.idle, 1e-9)


def parse_machine(text: str, tick: float) -> Machine:
    """Read the first line of /proc/stat; `tick` is in ticks per second."""
    user, nice, system, idle, iowait, irq, softirq, steal = (int(word) / tick for word in text.split()[1:9])
    return Machine(user + nice + system + irq + softirq + steal, idle + iowait, steal, softirq)


def parse_process(text: str, tick: float) -> tuple[float, float]:
    """Read /proc/PID/stat; return user and system time in seconds."""
    fields = text.rpartition(")")[2].split()
    return int(fields[11]) / tick, int(fields[12]) / tick


def parse_memory(text: str, key: str) -> float:
    """Return one figure of /proc/PID/status or smaps_rollup in MiB, 0 where it is not there."""
    for line in text.splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / _MIB
    return 0.0


def machine() -> Machine:
    """Read the whole machine."""
    return parse_machine(Path("/proc/stat").read_text().partition("\n")[0], _TICK)


def times(spaces: Iterable[Space]) -> Times:
    """Read the processes of these machines, and the whole machine's softirq."""
    user = system = 0.0
    for path in _processes(spaces):
        one, other = parse_process(_read(path / "stat") or ") " + "0 " * 50, _TICK)
        user, system = user + one, system + other
    return Times(user, system, machine().softirq)


def memory(space: Space) -> tuple[float, float]:
    """Return resident and proportional memory of a machine's processes, in MiB."""
    resident = proportional = 0.0
    for path in _processes([space]):
        resident += parse_memory(_read(path / "status"), "VmRSS")
        proportional += parse_memory(_read(path / "smaps_rollup"), "Pss")
    return resident, proportional


def _processes(spaces: Iterable[Space]) -> list[Path]:
    return [Path("/proc", str(pid)) for space in spaces for pid in ground.inside(ground.NETNS / space.full)]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
