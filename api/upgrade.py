"""`nexthop upgrade`: another release in the place of this one, on trial until it has shown that it does as well.

    prepare      a release beside the running one; it reads our configuration and a copy of our database
    switch       back up, move the link, restart the daemons; packets flow in the kernel meanwhile
    judge        every link that was up is up, every CIDR that was carried is carried, and nothing restarts by itself
    tunnels      restarted last, one after the other: device, address and routes stay, connections wait a moment
    or back      the link, the daemons, and the database where its schema had been changed

A power cut during the trial is a way back, too: the file `trial` is there then, and nexthop-untried acts on it at boot.
Until the switch nothing is changed and everything may be refused. After it there are two ends: the new release, or the
old one as it was.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from api.client import Failed
from appliance import database
from appliance.firstboot import Role
from appliance.release import Releases, Unsuitable, read_wheel

DAEMONS: Final = {
    Role.APPLIANCE: ("nexthop-forward.service", "nexthopd.service"),
    Role.GTUND: ("gtund.service",),
}
_TUNNELS: Final = "nexthop-gtun@*.service"


class Refused(Exception):
    """Nothing was changed; the message says why."""


class RolledBack(Exception):
    """The old release runs again; the message says what was wrong with the new one."""


class _Unwell(Exception):
    """The new release does not do as well as the old one."""


@dataclass(frozen=True, slots=True)
class Health:
    """How well a machine does: the links that are up, the CIDRs that are carried, as text."""

    links: frozenset[str] = frozenset()
    cidrs: frozenset[str] = frozenset()

    def lacks(self, before: Health) -> str:
        """Return what was well before and is not now; empty where nothing is."""
        down = [f"link {name} is not up" for name in sorted(before.links - self.links)]
        return ", ".join([*down, *(f"{cidr} is not carried" for cidr in sorted(before.cidrs - self.cidrs))])


class Api(Protocol):
    """What this needs of `api.client.Daemon`."""

    def get(self, target: str) -> object:
        """Return what is at `target`; raise `api.client.Failed`."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are on this machine. Seconds: `patience` until all is well, `steady` that it has to stay so."""

    releases: Releases = field(default_factory=Releases)
    etc: Path = Path("/etc/nexthop")
    database: Path = Path("/var/lib/nexthop/nexthop.db")
    systemctl: tuple[str, ...] = ("systemctl",)
    patience: float = 120.0
    steady: float = 5.0

    @property
    def trial(self) -> Path:
        """There while a release is on trial: the one before it, and its database's schema."""
        return self.releases.home / "trial"

    @property
    def backup(self) -> Path:
        """The database as it was before the last upgrade."""
        return self.releases.home / "backup" / "nexthop.db"


def upgrade(path: Path, daemon: Api, place: Place | None = None) -> Generator[str, None, None]:
    """Change to the release in a wheel; yield what was done. Raises `Refused`, `RolledBack`."""
    place = place or Place()
    if os.geteuid() != 0 and place.releases.home == Releases().home:
        raise Refused("only root can: use sudo")
    with _alone(place):
        yield from _upgrade(path.resolve(), daemon, place)


def _upgrade(path: Path, daemon: Api, place: Place) -> Iterator[str]:
    role = _role(place)
    if place.trial.exists():
        raise Refused("the last upgrade was cut off, and its release is on trial still: reboot, and it is taken back")
    try:
        old = place.releases.current
        wheel = read_wheel(path)
        if old.name == wheel.release:
            raise Refused(f"{wheel.release} is what runs already")
        before = _health(role, daemon)
        new = place.releases.install(wheel)
        yield f"{wheel.release} is installed beside {old.name}"
        _preflight(new, role, place)
        version = _back_up(place) if role is Role.APPLIANCE else None
    except Unsuitable as error:
        raise Refused(str(error)) from None
    except (OSError, sqlite3.Error) as error:
        raise Refused(f"the database cannot be copied: {error}") from None
    except Failed as error:
        raise Refused(
            f"the appliance does not answer, so nobody could tell whether the new one does: {error}"
        ) from None
    yield "it can read this machine's configuration and database"
    restarted: list[str] = []
    try:
        with _undisturbed():
            with place.trial.open("w") as file:
                file.write(f"{old.relative_to(place.releases.home)} {version or 0}\n")
                file.flush()
                os.fsync(file.fileno())
            place.releases.switch(new)  # syncs the directory that both are in
            yield from _trial(role, before, daemon, place, restarted)
    except (Exception, KeyboardInterrupt, GeneratorExit) as error:  # whatever it was, nothing stays on trial
        _back(old, version, role, restarted, place)
        raise RolledBack(str(error) or "it was interrupted") from None
    place.trial.unlink()
    place.releases.prune(old, new)
    yield f"{new.name} runs; {old.name} is kept"


def _trial(role: Role, before: Health, daemon: Api, place: Place, restarted: list[str]) -> Iterator[str]:
    """Restart everything on the new release, tunnels last; raise `_Unwell`."""
    restarted += DAEMONS[role]
    _restart(place, DAEMONS[role])
    _well(role, before, daemon, place, restarted)
    yield f"{' and '.join(DAEMONS[role])} run it, and all is as it was"
    for tunnel in _tunnels(place) if role is Role.APPLIANCE else ():
        restarted.append(tunnel)
        _restart(place, [tunnel])
        _well(role, before, daemon, place, restarted)
        yield f"{tunnel} runs it, and all is as it was"


def _back(old: Path, version: int | None, role: Role, restarted: Sequence[str], place: Place) -> None:
    """Let the old release run again. What cannot be done is left to systemd, which goes on trying."""
    place.releases.switch(old)
    if version is not None and not database.is_of(place.database, version):
        _systemctl(place, "stop", *DAEMONS[role])
        database.restore(place.database, place.backup)
    place.trial.unlink(missing_ok=True)
    if restarted:
        # In one go: all are stopped first, so that one that keeps failing does not slow down the others' start.
        _systemctl(place, "reset-failed", *restarted)
        _systemctl(place, "restart", *restarted)


# ---- judging ---------------------------------------------------------------------------------------------------------


def _well(role: Role, before: Health, daemon: Api, place: Place, units: Sequence[str]) -> None:
    """Return once all is as before, and stays so with the same processes; raise `_Unwell`."""
    deadline = time.monotonic() + place.patience
    since = time.monotonic()
    processes: str | None = None
    while True:
        lacking = _lacking(role, before, daemon)
        now = _systemctl(place, "show", "--property=MainPID", "--value", *units)
        if lacking or now != processes:
            since, processes = time.monotonic(), now
        elif time.monotonic() - since >= place.steady:
            return
        if time.monotonic() > deadline:
            raise _Unwell(lacking or f"{', '.join(units)} keep restarting")
        time.sleep(min(0.5, place.steady / 4))


def _lacking(role: Role, before: Health, daemon: Api) -> str:
    try:
        return _health(role, daemon).lacks(before)
    except Failed as error:
        return str(error)


def _health(role: Role, daemon: Api) -> Health:
    """Ask the daemon; raise `Failed`. The far end has none to ask: there, systemd's word is all."""
    if role is Role.GTUND:
        return Health()
    status = daemon.get("/v1/status")
    assert isinstance(status, dict)  # noqa: S101  (the client's promise for this resource)
    links = frozenset(str(link["name"]) for link in status["links"] if link["state"] == "up")
    cidrs = frozenset(str(each["cidr"]) for each in status["cidrs"] if each["layers"]["kernel"]["state"] == "ok")
    return Health(links, cidrs)


def _preflight(release: Path, role: Role, place: Place) -> None:
    """Let the new release look at what it would work with; raise `Unsuitable`."""
    config = place.etc / ("gtund.toml" if role is Role.GTUND else "nexthop.toml")
    with tempfile.TemporaryDirectory(prefix="nexthop-preflight-") as scratch:
        copied = []
        if role is Role.APPLIANCE and place.database.exists():
            database.copy(place.database, Path(scratch, "copy.db"))
            copied = [str(Path(scratch, "copy.db"))]
        argv = [str(release / "bin" / "python"), "-m", "appliance.preflight", role.value, str(config), *copied]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise Unsuitable(
            f"the new version cannot work with what is here: {said[-1] if said else 'it does not say why'}"
        )


# ---- acting ----------------------------------------------------------------------------------------------------------


def _back_up(place: Place) -> int | None:
    """Copy the database aside; return its schema's version, None where there is no database."""
    if not place.database.exists():
        return None
    place.backup.parent.mkdir(mode=0o700, exist_ok=True)
    database.copy(place.database, place.backup)
    return database.schema(place.database)


def _role(place: Place) -> Role:
    try:
        return Role((place.etc / "role").read_text().strip())
    except (OSError, ValueError):
        raise Refused("this machine has no role yet: nexthop setup") from None


def _restart(place: Place, units: Sequence[str]) -> None:
    for unit in units:
        if _systemctl(place, "restart", unit) is None:
            raise _Unwell(f"{unit} does not start; see journalctl -u {unit}")


def _tunnels(place: Place) -> tuple[str, ...]:
    listed = _systemctl(place, "list-units", "--plain", "--no-legend", "--state=active", _TUNNELS) or ""
    return tuple(line.split()[0] for line in listed.splitlines() if line.strip())


def _systemctl(place: Place, *command: str) -> str | None:
    """Return what systemctl printed; None where it failed."""
    done = subprocess.run([*place.systemctl, *command], capture_output=True, text=True, check=False)
    return None if done.returncode else done.stdout


@contextlib.contextmanager
def _alone(place: Place) -> Iterator[None]:
    """Hold all releases: two upgrades would judge each other's."""
    try:
        descriptor = os.open(place.releases.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"{place.releases.home}: {error.strerror}: this machine was not made by provision.sh") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Refused("another upgrade is at work") from None
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Go on where the terminal goes away; where somebody asks us to end, go back first."""

    def interrupt(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    hung_up, told_to_end = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, hung_up)
        signal.signal(signal.SIGTERM, told_to_end)
