"""Scratch network namespaces: made here, entered by the test's own thread, gone afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.kernel.firewall import Backend


_libc: Final = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET: Final = 0x40000000
_numbers: Final = itertools.count()


class Space:
    """A network namespace of its own."""

    def __init__(self) -> None:
        self.name = f"nh-test-{os.getpid()}-{next(_numbers)}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)

    def close(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=True)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread, and what it starts, be in the namespace."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.name}") as there:  # noqa: PTH123
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def sh(self, script: str) -> str:
        """Run a script there, entered as it is (`ip netns exec` would mount another /sys)."""
        command = ["nsenter", f"--net=/run/netns/{self.name}", "--", "sh", "-eu", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@pytest.fixture
def spaces() -> Iterator[list[Space]]:
    """Three empty namespaces."""
    made: list[Space] = []
    try:
        made += [Space() for _ in range(3)]
        yield made
    finally:
        for space in made:
            space.close()


@pytest.fixture
def space() -> Iterator[Space]:
    """One empty namespace; the test has to enter it."""
    made = Space()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=["iptables", "nftables"])
def firewall(request: pytest.FixtureRequest) -> Backend:
    """Both implementations, one after the other."""
    from appliance.kernel.choose import backend  # noqa: PLC0415 iptc loads kernel modules as it is imported

    return backend(request.param)
