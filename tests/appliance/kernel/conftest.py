"""Scratch network namespaces: made here, entered by the test's own thread, gone afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import subprocess
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from appliance.kernel.firewall import Backend


@functools.cache
def iptables_fault() -> str | None:
    """Return why python-iptables cannot hold our rules on this machine, None where it can."""
    from appliance.kernel.choose import probe  # noqa: PLC0415

    return next((f"{shape}: {text}" for shape, text in probe("iptables").items() if text is not None), None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs python-iptables where it cannot hold our rules; test_choose shows what happens then."""
    callspec = getattr(item, "callspec", None)
    needed = item.get_closest_marker("iptables") or (callspec and "iptables" in callspec.params.values())
    if needed and (fault := iptables_fault()):
        pytest.skip(f"python-iptables cannot hold our rules here (on Debian 13 it cannot clamp): {fault}")


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
