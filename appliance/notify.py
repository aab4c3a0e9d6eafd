"""What systemd is told, where there is one (sd_notify(3), sd_watchdog_enabled(3)): datagrams to NOTIFY_SOCKET.

A watchdog is fed by progress alone: each program says `progressed()` where something was truly brought to an end, and
never from a timer, since a timer goes on in a program that does nothing else any more. It begins when the program is
ready: systemd counts from READY=1 on, but from the first WATCHDOG=1 if that comes earlier, and then a start that takes
longer than the watchdog's period on a slow machine would be ended, each time.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

_told: Final[set[str]] = set()  # by this process, whether or not anybody listened


def notify(state: str) -> None:
    """Tell `state`, such as READY=1; nobody there is no error."""
    _told.add(state)
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # the abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sender:
            sender.connect(address)
            sender.sendall(state.encode())
    except OSError as error:
        log.warning("systemd cannot be told %s: %s", state, error)


class Watchdog:
    """Feeds the watchdog on `progressed()`, at most four times per period; does nothing where there is none."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._every = period() / 4
        self._fed: float | None = None

    def progressed(self) -> None:
        """Say that something was brought to an end."""
        if "READY=1" not in _told:
            return
        now = self._clock()
        if self._every and (self._fed is None or now - self._fed >= self._every):
            self._fed = now
            notify("WATCHDOG=1")


def period() -> float:
    """Return after how many seconds of silence we are ended; 0 where nobody watches."""
    whom, period = os.environ.get("WATCHDOG_PID", ""), os.environ.get("WATCHDOG_USEC", "")
    if not period.isdecimal() or (whom and whom != str(os.getpid())):
        return 0.0
    return int(period) / 1e6
