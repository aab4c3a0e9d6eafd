"""What holds for every test: property tests are not timed, and a test run leaves nothing on the machine."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

# A property test looks for wrong answers and never for slow ones: the machine may have other things to do.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_XTABLES_LOCK: Final = Path("/run/xtables.lock")
_NETNS: Final = Path("/run/netns")
_MNT_DETACH: Final = 2  # umount2(2)
_BEFORE: Final = pytest.StashKey[dict[Path, bool]]()


def pytest_configure(config: pytest.Config) -> None:
    """Note what is there: iptables makes its lock, and `ip netns` its directory, when they are first used."""
    config.stash[_BEFORE] = {path: path.exists() for path in (_XTABLES_LOCK, _NETNS)}


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what was not there before and is of no use to anybody now."""
    before = config.stash.get(_BEFORE, {})
    if before.get(_XTABLES_LOCK) is False:
        _XTABLES_LOCK.unlink(missing_ok=True)
    if before.get(_NETNS) is False and _NETNS.is_dir() and not any(_NETNS.iterdir()):
        ctypes.CDLL(None).umount2(str(_NETNS).encode(), _MNT_DETACH)  # `ip netns add` binds it to itself
        with contextlib.suppress(OSError):
            _NETNS.rmdir()
