"""What plays systemd on a machine of the lab: `python -m tests.lab.supervisor DIR`, inside that machine's namespace.

`DIR/units.json` says what runs: fixed units by name and command line, and one template that is instantiated for every
file of a directory, as the image's `gtun@.service` is for every link:

    {"units": {"nexthop-forward": {"argv": [...], "watchdog": 20},
               "nexthopd": {"argv": [...], "after": ["nexthop-forward"]}},
     "template": {"name": "gtun@{stem}", "glob": "/state/links/*.toml",
                  "argv": ["gtun", "--config", "{path}", "--control", "/run/links/{stem}.sock"]}}

A unit waits for those named in `after` to have been ready once (READY=1), unless they are held. One with a `watchdog`
that was ready and says nothing for so many seconds is ended by SIGABRT, as by systemd, and started again.

A unit that ends is started again, at first after 0.1 s (systemd's own default), later and later while it keeps ending
at once. While `DIR/hold/UNIT` exists the unit is not started, so that a test can kill it and look at what its absence
does. `DIR/status/UNIT` says what is: {"pid": 12 or null, "starts": 3, "exit": -9 or null, "ready": true}.
On SIGTERM every unit gets SIGTERM, and SIGKILL if it is still there 5 s later.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

TICK: Final = 0.05  # seconds between looks at the files; the end of a program is noticed at once
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 3.0
STEADY: Final = 5.0  # seconds after which a unit counts as having come up
PATIENCE: Final = 5.0


@dataclass(frozen=True, slots=True)
class Wish:
    """How a unit is to run: its command line, who has to be ready before, and seconds of silence at most (0: any)."""

    argv: tuple[str, ...]
    after: tuple[str, ...] = ()
    watchdog: float = 0.0


@dataclass(slots=True)
class Unit:
    """One program that is to run for as long as it is wanted."""

    name: str
    wish: Wish
    heard: socket.socket
    ready: bool = False  # has been, once
    up: bool = False  # is, in this life
    last_word: float = 0.0
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    exit: int | None = None
    started: float = 0.0
    due: float = 0.0
    pause: float = FIRST_PAUSE
    written: str = field(default="", repr=False)

    def step(self, directory: Path, now: float, *, may_start: bool) -> None:
        """Notice what it says and its end, start again when it is time, and write down what is."""
        self._hear(now)
        if self.process and self.up and self.wish.watchdog and now - self.last_word > self.wish.watchdog:
            self.process.send_signal(signal.SIGABRT)
            self.process.send_signal(signal.SIGCONT)  # one that is stopped would not hear it
            self.last_word = now
        if self.process and self.process.poll() is not None:
            self.exit, self.process = self.process.returncode, None
            self.pause = FIRST_PAUSE if now - self.started > STEADY else min(2 * self.pause, LONGEST_PAUSE)
            self.due = now + self.pause
        if not self.process and now >= self.due and may_start and not (directory / "hold" / self.name).exists():
            self._start(directory, now)
        self._tell(directory / "status" / self.name)

    def _hear(self, now: float) -> None:
        with contextlib.suppress(BlockingIOError):
            while said := self.heard.recv(4096):
                self.last_word = now
                if b"READY=1" in said:
                    self.ready = self.up = True

    def _start(self, directory: Path, now: float) -> None:
        environment = {**os.environ, "NOTIFY_SOCKET": str(directory / "notify" / self.name)}
        if self.wish.watchdog:
            environment["WATCHDOG_USEC"] = str(round(self.wish.watchdog * 1e6))
        with (directory / "log" / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.wish.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        self.starts += 1
        self.up = False
        self.started = self.last_word = now

    def _tell(self, path: Path) -> None:
        now = {
            "pid": self.process.pid if self.process else None,
            "starts": self.starts,
            "exit": self.exit,
            "ready": self.ready,
        }
        if (text := json.dumps(now)) != self.written:
            fresh = path.with_name(f".{path.name}")
            fresh.write_text(text)
            fresh.replace(path)
            self.written = text


def wanted(directory: Path, before: Mapping[str, Wish]) -> dict[str, Wish]:
    """Return how every unit that there should be now is to run. `before`: what this said last.

    As with nexthop-links, a directory of links that is away says nothing of them.
    """
    plan: dict[str, Any] = json.loads((directory / "units.json").read_text())
    units = {
        name: Wish(tuple(unit["argv"]), tuple(unit.get("after", ())), unit.get("watchdog", 0.0))
        for name, unit in plan.get("units", {}).items()
    }
    if template := plan.get("template"):
        glob = Path(template["glob"])
        if not glob.parent.is_dir():
            made = template["name"].partition("{")[0]
            units |= {name: wish for name, wish in before.items() if name.startswith(made)}
        for path in sorted(glob.parent.glob(glob.name)):
            names = {"stem": path.stem, "path": str(path)}
            units[template["name"].format(**names)] = Wish(tuple(part.format(**names) for part in template["argv"]))
    return units


def listen(path: Path) -> socket.socket:
    """Return what hears a unit's words."""
    path.unlink(missing_ok=True)
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    heard.bind(str(path))
    return heard


def stop(units: list[Unit]) -> None:
    """Ask all to end, and end those that do not."""
    running = [unit.process for unit in units if unit.process]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + PATIENCE
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> int:
    """Run until SIGTERM."""
    directory = Path(sys.argv[1])
    for name in ("hold", "status", "log", "notify"):
        (directory / name).mkdir(exist_ok=True)
    leave: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda caught, _frame: leave.append(caught))
    signal.signal(signal.SIGCHLD, lambda _caught, _frame: None)
    awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    units: dict[str, Unit] = {}
    plan: dict[str, Wish] = {}
    while not leave:
        plan = wanted(directory, plan)
        gone = [units.pop(name) for name in set(units) - set(plan)]
        stop(gone)
        for unit in gone:
            (directory / "status" / unit.name).unlink(missing_ok=True)
            unit.heard.close()
        for name, wish in plan.items():
            if name not in units:
                units[name] = Unit(name, wish, listen(directory / "notify" / name))
            ordered = all(
                units[other].ready or (directory / "hold" / other).exists() for other in wish.after if other in units
            )
            units[name].step(directory, time.monotonic(), may_start=ordered)
        if select.select([awake], [], [], TICK)[0]:
            os.read(awake, 4096)
    stop(list(units.values()))
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
