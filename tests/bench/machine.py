"""On what, and against which versions, a run was made: for the report, so that others can make it again."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.contenders import Kind
from tests.lab.space import environment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.bench.contenders import Contender

_VERSION: Final = {
    "wireguard-go": ("wireguard-go", "--version"),
    "openvpn": ("openvpn", "--version"),
    "iperf3": ("iperf3", "--version"),
}
_PROGRAMS: Final = ("ethtool", "iperf3", "nft", "ping", "ss")
_PEERS: Final = {Kind.WIREGUARD: ("wg", "wireguard-go"), Kind.OPENVPN: ("openvpn",)}


def missing(taking_part: Iterable[Contender]) -> tuple[str, ...]:
    """Return the programs that a run with these contenders needs, and this machine lacks."""
    needed = (*_PROGRAMS, *(name for one in taking_part for name in _PEERS.get(one.kind, ())))
    return tuple(name for name in dict.fromkeys(needed) if shutil.which(name, path=environment()["PATH"]) is None)


def versions() -> dict[str, str]:
    """Return the version of each program that takes part."""
    return {name: version_in(_said(*command)) for name, command in _VERSION.items()}


def version_in(text: str) -> str:
    """Return the first thing that looks like a version, "?" where there is none."""
    found = re.search(r"\d+\.\d+[.\d]*", text)
    return found[0] if found else "?"


def describe() -> dict[str, str | int]:
    """Return the kernel, the processor and the interpreter."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "kernel": platform.release(),
        "processor": model[1] if model else platform.machine(),
        "processors_in_all": os.cpu_count() or 0,
        "python": platform.python_version(),
    }


def _said(*command: str) -> str:
    if shutil.which(command[0], path=environment()["PATH"]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    return done.stdout + done.stderr
