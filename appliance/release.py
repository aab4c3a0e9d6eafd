"""Releases of this program, side by side: each is a virtual environment, and a link says which one runs.

    /opt/nexthop/releases/0.1.0-1a2b3c4d5e6f/   version, and the beginning of the wheel's SHA-256
    /opt/nexthop/current -> releases/...        what units start: /opt/nexthop/bin is current/bin
    /opt/nexthop/wheelhouse/                    the dependencies' wheels: nothing is fetched from a network

A release is never changed once it is complete, and a program that runs keeps reading from its own. So the link may move
under running daemons, and moving it back is all that a roll-back takes. A new release shares the files of what did not
change with the one it was made beside.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Final

_COMPLETE: Final = ".complete"
_WHEEL: Final = re.compile(r"nexthop-[0-9][A-Za-z0-9_.+!]*-py3-none-any\.whl")
_PIP: Final = Path("/usr/share/python-wheels")
_OURS: Final = ("api", "appliance", "cloud")


class Unsuitable(Exception):
    """The wheel cannot become a release here; the message says why, and nothing was changed."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel of this program."""

    path: Path
    version: str
    digest: str

    @property
    def release(self) -> str:
        """What its release is called."""
        return f"{self.version}-{self.digest[:12]}"


def read_wheel(path: Path) -> Wheel:
    """Look into a wheel; raise `Unsuitable`."""
    if not _WHEEL.fullmatch(path.name):
        raise Unsuitable(f"{path.name} is not named like a wheel of nexthop: nexthop-VERSION-py3-none-any.whl")
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
            told = HeaderParser().parsestr(archive.read(name).decode())
    except OSError as error:
        raise Unsuitable(f"{path} cannot be read: {error.strerror}") from None
    except (zipfile.BadZipFile, ValueError):
        raise Unsuitable(f"{path} is damaged: copy it again") from None
    if broken is not None or told["Name"] != "nexthop" or not told["Version"]:
        raise Unsuitable(f"{path} is damaged, or not nexthop: copy it again")
    return Wheel(path, told["Version"], digest)


@dataclass(frozen=True, slots=True)
class Releases:
    """All releases below `home`. `pip`: the command that installs; by default the one that Debian keeps for venv."""

    home: Path = Path("/opt/nexthop")
    python: str = "/usr/bin/python3"
    pip: tuple[str, ...] = ()

    @property
    def current(self) -> Path:
        """The release that runs; raise `Unsuitable` where there is none."""
        try:
            return (self.home / "current").resolve(strict=True)
        except OSError:
            raise Unsuitable(f"{self.home}/current is no release: this machine was not made by provision.sh") from None

    def switch(self, release: Path) -> None:
        """Make `release` the one that runs, for whatever starts from now on; on disk when this returns."""
        fresh = self.home / ".current"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(release.relative_to(self.home))
        fresh.replace(self.home / "current")
        _sync(self.home)

    def install(self, wheel: Wheel) -> Path:
        """Make a release of a wheel, with dependencies from beside it or from the wheelhouse; raise `Unsuitable`."""
        release = self.home / "releases" / wheel.release
        if (release / _COMPLETE).exists():
            return release
        shutil.rmtree(release, ignore_errors=True)
        try:
            self._run(self.python, "-m", "venv", "--without-pip", str(release))
            self._share(self.current, release)
            sources = ("--find-links", str(wheel.path.parent), "--find-links", str(self.home / "wheelhouse"))
            self._run(
                *(*self._pip(), "--quiet", "--no-input", "--disable-pip-version-check"),
                *("--python", str(release / "bin" / "python"), "install", "--no-index", *sources, str(wheel.path)),
            )
        except (Unsuitable, OSError) as error:
            shutil.rmtree(release, ignore_errors=True)
            raise Unsuitable(str(error)) from None
        (release / _COMPLETE).touch()
        _sync(release)
        return release

    def prune(self, *keep: Path) -> None:
        """Remove every other release."""
        for release in (self.home / "releases").iterdir():
            if release not in keep:
                shutil.rmtree(release, ignore_errors=True)

    def _share(self, old: Path, new: Path) -> None:
        """Give a new environment the old one's libraries, as further names of the same files; of us it gets nothing.

        pip takes what still fits as it is, and replaces the rest by unlinking: the old environment keeps its own.
        """
        (source,), (target,) = old.glob("lib/python3*/site-packages"), new.glob("lib/python3*/site-packages")
        if source.parent.name != target.parent.name:
            return  # Debian was upgraded, and Python with it: everything is installed afresh
        for entry in source.iterdir():
            if entry.name in _OURS or entry.name.startswith("nexthop-"):
                continue
            if entry.is_dir():
                shutil.copytree(entry, target / entry.name, copy_function=os.link, dirs_exist_ok=True)
            elif not (target / entry.name).exists():
                os.link(entry, target / entry.name)

    def _pip(self) -> tuple[str, ...]:
        if self.pip:
            return self.pip
        found = sorted(_PIP.glob("pip-*.whl"))
        if not found:
            raise Unsuitable(f"there is no pip in {_PIP}: apt-get install python3-venv")
        return (self.python, str(found[-1] / "pip"))

    def _run(self, *argv: str) -> None:
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "PIP_ROOT_USER_ACTION": "ignore"}
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise Unsuitable(f"it cannot be installed: {' '.join(lines[-3:]) or f'exit status {done.returncode}'}")


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
