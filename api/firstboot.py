"""What makes a machine from the image one of its own: configuration, services, links, CIDRs.

Every step may be repeated, so a first boot that was cut off, or a daemon that takes its time, is no trouble: systemd
starts the unit again and it goes on. A document that will not do is another matter (`Unusable`): repeating mends
nothing. Keys are made by the daemons when they first start; nothing in the image is secret.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from api.client import Failed, Refused
from appliance.firstboot import BadFirstBoot, FirstBoot, Role, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UNITS: Final = {
    Role.APPLIANCE: (
        "nexthop-forward.service",
        "nexthopd.socket",
        "nexthopd.service",
        "nexthop-links.path",
        "nexthop-links.timer",
        "nexthop-links.service",
    ),
    Role.GTUND: ("gtund.service",),
}
_CONFIG: Final = {Role.APPLIANCE: "nexthop.toml", Role.GTUND: "gtund.toml"}
_PATIENCE: Final = 120.0  # seconds; the first start of a small machine takes its time
_POLL: Final = 0.5


class Api(Protocol):
    """What this needs of `api.client.Daemon`."""

    def get(self, target: str) -> object:
        """Return what is at `target`; raise `api.client.Failed`."""
        ...

    def request(self, method: str, target: str, body: object = None) -> tuple[int, object]:
        """Return status and decoded body; raise `api.client.Failed`."""
        ...


class Unusable(Exception):
    """What was asked for will not do, now or later; the message says what to write instead."""


class NotYet(Exception):
    """Something that was started does not answer, or the disk refuses; trying again later may help."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are on this machine, and what speaks to systemd."""

    etc: Path = Path("/etc/nexthop")
    systemctl: tuple[str, ...] = ("systemctl",)

    @property
    def document(self) -> Path:
        """What cloud-init writes."""
        return self.etc / "firstboot.yaml"

    @property
    def role(self) -> Path:
        """What this machine is, in one word."""
        return self.etc / "role"


def from_file(place: Place, daemon: Api, **options: float) -> Iterator[str]:
    """Do what the document says, then remove it, since it holds a token; yield what was done."""
    try:
        document = read(place.document.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Unusable(f"{place.document} is not there: write it, or run `nexthop setup`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(f"{place.document} cannot be read: {type(error).__name__}") from None
    except BadFirstBoot as error:
        raise Unusable(f"{place.document}: {error}") from None
    yield from carry_out(document, place, daemon, **options)
    place.document.unlink()


def carry_out(document: FirstBoot, place: Place, daemon: Api, *, patience: float = _PATIENCE) -> Iterator[str]:
    """Make the machine what the document says; yield what was done. Raises `Unusable`, `NotYet`."""
    path = place.etc / _CONFIG[document.role]
    try:
        place.etc.mkdir(mode=0o755, parents=True, exist_ok=True)
        _write(path, document.config)
        yield f"{path} is written"
        _systemctl(place, "enable", *UNITS[document.role])
        _systemctl(place, "start", *UNITS[document.role])
        yield f"started {', '.join(UNITS[document.role])}"
        if document.role is Role.APPLIANCE:
            yield from _appliance(document, daemon, patience)
        _write(place.role, document.role.value + "\n")
    except OSError as error:
        raise NotYet(f"{error.filename}: {error.strerror}") from None


def _appliance(document: FirstBoot, daemon: Api, patience: float) -> Iterator[str]:
    _patiently(lambda: daemon.get("/v1/status"), patience)
    for name, token in document.links.items():
        if _told(daemon, "/v1/links", {"name": name, "token": token}, patience, known="link-exists"):
            yield f"joined the link {name}"
    for body in document.cidrs:
        _told(daemon, "/v1/cidrs", dict(body), patience)
        yield f"added {body['cidr']}"


def _told(daemon: Api, target: str, body: object, patience: float, *, known: str = "") -> bool:
    """Send it until it is taken; False where it was there before. Raises `Unusable` where it never will be."""
    try:
        _patiently(lambda: daemon.request("POST", target, body), patience)
    except Refused as error:
        if error.code == known:
            return False
        reasons = error.problem.get("reasons") or [{"text": str(error), "next_step": ""}]
        raise Unusable("; ".join(f"{each['text']} -> {each['next_step']}" for each in reasons)) from None
    return True


def _patiently(ask: Callable[[], object], patience: float) -> None:
    """Ask until there is an answer; a refusal that may pass (5xx) is none."""
    deadline = time.monotonic() + patience
    while True:
        try:
            ask()
        except Failed as error:
            passing = not isinstance(error, Refused) or int(error.problem.get("status", 400)) >= 500
            if not passing:
                raise
            if time.monotonic() > deadline:
                raise NotYet(str(error)) from None
            time.sleep(_POLL)
        else:
            return


def _systemctl(place: Place, *command: str) -> None:
    done = subprocess.run([*place.systemctl, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotYet(f"systemctl {command[0]}: {done.stderr.strip() or f'exit status {done.returncode}'}")


def _write(path: Path, text: str) -> None:
    """Replace a file whole; what is the same already is left alone."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(0o644)
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.replace(path)
