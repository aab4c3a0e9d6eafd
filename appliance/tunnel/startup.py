"""When BBR is to be told that it has found the line's bandwidth. Pure: what the kernel says is passed in.

BBR sends 2.9 times as fast as it has measured until three round trips have brought no more; those in which it had
nothing left to send do not count (bbr_check_full_bw_reached in net/ipv4/tcp_bbr.c). One flow inside never keeps it
busy at that rate, so it stays in its start-up for ever. Whatever the flow has on its way beyond what the line holds
then waits on the line, in front of everybody, and not in the flow's own lane with us. Held to what it has measured, it
has something left to send, three round trips count, and the line drains.
"""

from __future__ import annotations

import struct
from typing import Final

_BBR: Final = struct.Struct("=IIII4x")
"""Of struct tcp_bbr_info in linux/inet_diag.h: bytes per second, its lower half first, the least round trip in
microseconds, and the pacing gain."""

SIZE: Final = _BBR.size
UNLIMITED: Final = -1
"""What SO_MAX_PACING_RATE takes for no limit (sk_setsockopt in net/core/sock.c)."""

_HIGHEST: Final = (1 << 31) - 1

_STARTING: Final = 700
"""Of 256: start-up's pacing gain is 739, the highest of the other states 320."""

_QUEUE: Final = 1.15
"""How many times its least the round trip is while something waits on the line."""

_STANDS: Final = 4
"""Round trips after which that is no burst any more, nor a stall of a processor."""


class StartUp:
    """What is known of one connection."""

    def __init__(self) -> None:
        self._since = 0.0  # since when something has waited on the line; 0 while nothing does
        self._held = False

    def limit(self, told: bytes, rtt: float, now: float) -> int:
        """Return the pacing rate, in bytes per second, to hold BBR to from now on.

        `told`: what TCP_CC_INFO returns, which may be nothing. `rtt`: the smoothed round trip in seconds. Once held, it
        stays so until it has left its start-up.
        """
        if len(told) < SIZE:
            return UNLIMITED
        low, high, least, gain = _BBR.unpack_from(told)
        if gain < _STARTING or not (self._held or rtt > _QUEUE * least / 1e6):
            self._since, self._held = 0.0, False
            return UNLIMITED
        self._since = self._since or now
        self._held = self._held or now - self._since >= _STANDS * rtt
        return (min(high << 32 | low, _HIGHEST) or UNLIMITED) if self._held else UNLIMITED
