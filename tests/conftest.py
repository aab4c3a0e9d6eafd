"""What holds for every test: property tests are not timed, and a test run leaves nothing on the machine."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import shutil
import signal
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

# A property test looks for wrong answers and never for slow ones: the machine may have other things to do.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_XTABLES_LOCK: Final = Path("/run/xtables.lock")
_NETNS: Final = Path("/run/netns")
_MOUNT: Final = Path("/run/mount")
_SYSTEMD: Final = Path("/run/systemd")
_MNT_DETACH: Final = 2  # umount2(2)
_BEFORE: Final = pytest.StashKey[dict[Path, bool]]()


def pytest_configure(config: pytest.Config) -> None:
    """Note what is there: iptables makes its lock, `ip netns` and mount(8) their directories, when first used."""
    # What a shell runs in the background ignores Ctrl-C, and so do its children (POSIX, asynchronous lists); some
    # tests are about it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        return  # one of several test processes: the one that started them tidies up after all
    config.stash[_BEFORE] = {path: path.exists() for path in (_XTABLES_LOCK, _NETNS, _MOUNT, _SYSTEMD)}


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what was not there before and is of no use to anybody now."""
    before = config.stash.get(_BEFORE, {})
    if before.get(_XTABLES_LOCK) is False:
        _XTABLES_LOCK.unlink(missing_ok=True)
    if before.get(_NETNS) is False and _NETNS.is_dir() and not any(_NETNS.iterdir()):
        ctypes.CDLL(None).umount2(str(_NETNS).encode(), _MNT_DETACH)  # `ip netns add` binds it to itself
        with contextlib.suppress(OSError):
            _NETNS.rmdir()
    if before.get(_MOUNT) is False:
        with contextlib.suppress(OSError):
            _MOUNT.rmdir()
    if before.get(_SYSTEMD) is False:  # systemd-analyze makes it where no systemd runs
        shutil.rmtree(_SYSTEMD, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what mostly waits: several test processes then have something to do until the end."""
    items.sort(key=lambda item: item.get_closest_marker("lab") is None)  # else in the order of the files


@functools.cache
def iptables_fault() -> str | None:
    """Return why python-iptables cannot hold our rules on this machine, None where it can."""
    from appliance.kernel.choose import probe  # noqa: PLC0415

    return next((f"{shape}: {text}" for shape, text in probe("iptables").items() if text is not None), None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs python-iptables where it cannot hold our rules; the test of `choose` shows what happens then."""
    callspec = getattr(item, "callspec", None)
    needed = item.get_closest_marker("iptables") or (callspec and "iptables" in callspec.params.values())
    if needed and (fault := iptables_fault()):
        pytest.skip(f"python-iptables cannot hold our rules here (on Debian 13 it cannot clamp): {fault}")
