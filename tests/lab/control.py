"""The control sockets of both ends of the tunnel, and the processes behind them, as a test in the lab sees them."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.lab.programs import LINK

if TYPE_CHECKING:
    from tests.lab.lab import Lab

CLIENT: Final = "shenzhen"
GTUN: Final = f"gtun@{LINK}"
_PATIENCE: Final = 20.0


def ask(path: Path, command: str = "") -> dict[str, Any]:
    """Return the state that a control socket tells, or what a command has done; {} where nobody answers."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_PATIENCE)
        try:
            sock.connect(str(path))
            sock.sendall(command.encode())
            sock.shutdown(socket.SHUT_WR)
            return dict(json.loads(sock.makefile().read() or "{}"))
        except OSError:
            return {}


def gtun(lab: Lab, command: str = "") -> dict[str, Any]:
    """Ask the link's gtun."""
    return ask(lab.place("appliance") / "run" / "links" / f"{LINK}.sock", command)


def gtund(lab: Lab) -> dict[str, Any]:
    """Ask gtund."""
    return ask(lab.place("gtund") / "run" / "gtund.sock")


def session(lab: Lab) -> dict[str, Any]:
    """Return what gtund says of the appliance's session; {} while there is none."""
    return dict(gtund(lab).get("clients", {}).get(CLIENT, {}))


def worker(lab: Lab, machine: str) -> int:
    """Return the process id of the data plane behind a machine's gtun or gtund."""
    pid = lab.unit(machine, GTUN if machine == "appliance" else "gtund").pid
    return lab.wait("a worker", lambda: children(pid))[0]


def overrun(lab: Lab, machine: str) -> int:
    """Return how many packets the kernel had no room for in the TUN: its data plane did not come to read them."""
    device = f"tun-{LINK}" if machine == "appliance" else f"gt-{CLIENT}"
    told = json.loads(lab[machine].run("ip", "--json", "--statistics", "link", "show", device).stdout)
    return int(told[0]["stats64"]["tx"]["dropped"])


def children(pid: int | None) -> list[int]:
    """Return a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes of one end hold: gtun or gtund, and its data plane.

    `held`: descriptors and tasks; `pss`, of both together, and `anonymous`, of each, of which nothing is shared: bytes
    (proc(5), smaps_rollup).
    """

    held: tuple[int, int]
    pss: int
    anonymous: tuple[int, int]


def usage(lab: Lab, machine: str) -> Usage:
    """Return what one end's processes hold now."""
    told, unit = (gtun(lab), GTUN) if machine == "appliance" else (gtund(lab), "gtund")
    pids = [lab.unit(machine, unit).pid, worker(lab, machine)]
    descriptors = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)
    pss, anonymous = ([_memory(pid, key) for pid in pids] for key in ("Pss", "Anonymous"))
    return Usage((descriptors, told["tasks"]), sum(pss), (anonymous[0], anonymous[1]))


def _memory(pid: int | None, key: str) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) << 10
