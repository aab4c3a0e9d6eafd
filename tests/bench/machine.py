"""On what, and against which versions, a run was made: for the report, so that others can make it again."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.lab.space import environment

_VERSION: Final = {
    "wireguard-go": ("wireguard-go", "--version"),
    "openvpn": ("openvpn", "--version"),
    "iperf3": ("iperf3", "--version"),
}
_PROGRAMS: Final = ("ethtool", "iperf3", "nft", "openvpn", "ping", "ss", "wg", "wireguard-go")


def missing() -> tuple[str, ...]:
    """Return the programs that a run needs and this machine lacks."""
    return tuple(name for name in _PROGRAMS if shutil.which(name, path=environment()["PATH"]) is None)


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
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    return done.stdout + done.stderr
