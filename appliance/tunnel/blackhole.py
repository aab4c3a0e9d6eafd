"""Does the path swallow full datagrams, and say nothing? Pure: the clock is passed in, in seconds.

A path that takes less than we send should say so (ICMP, "fragmentation needed"), and then the kernel knows. Where that
message is filtered, short datagrams pass, full ones vanish, and what is sent in full ones is lost for ever (RFC 2923,
section 2.1). So while the peer misses anything, every other probe is as long as a full datagram (RFC 8899, section 4):
when these stay away while short ones come back, the path takes less than we thought. Loss by chance hits both alike, so
the more short ones are lost, the more full ones have to be missing in a row. A path that loses nothing has none of them
to carry, nor to pay for.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

_PATIENCE: Final = 1.5
"""Seconds after which a probe will not come back any more."""
_LEAST: Final = 8
"""Full probes that have to be missing in a row, however good the path: who drops by bytes drops long ones first."""
_MISTAKEN: Final = 1e-6
"""How likely loss by chance may look like this."""
_NO_PATH: Final = 0.7
"""Of short probes lost: beyond it nothing passes well enough to say anything."""
_GAIN: Final = 1 / 16
_LADDER: Final = (1500, 1460, 1400, 1280, 1100, 900, 700, 576)
"""What paths take, in bytes of an IP packet: Ethernet, clouds' overlays, tunnels, IPv6's least, and so on."""


class BlackHole:
    """The probes of one socket."""

    def __init__(self) -> None:
        self._was_full = False
        self._sent: deque[tuple[float, bool]] = deque(maxlen=64)
        self._missing = 0
        self._loss = 0.0

    def full(self, *, suspected: bool) -> bool:
        """Return whether the next probe is to be a full one; `suspected`: something is being lost."""
        self._was_full = suspected and not self._was_full
        return self._was_full

    def sent(self, now: float, *, full: bool) -> None:
        """Note that a probe was sent; its time is its name."""
        self._sent.append((now, full))

    def echoed(self, sent_at: float) -> None:
        """Note that the probe that was sent then came back."""
        for full in (False, True):
            if (sent_at, full) in self._sent:
                self._sent.remove((sent_at, full))
                self._judged(full=full, lost=False)

    def swallows(self, now: float) -> bool:
        """Return whether full datagrams vanish on this path. To be asked now and then; it begins anew after a yes."""
        while self._sent and now - self._sent[0][0] > _PATIENCE:
            self._judged(full=self._sent.popleft()[1], lost=True)
        if self._loss > _NO_PATH or self._missing < self._enough():
            return False
        self._missing = 0
        return True

    def _judged(self, *, full: bool, lost: bool) -> None:
        if full:
            self._missing = self._missing + 1 if lost else 0
        else:
            self._loss += _GAIN * (lost - self._loss)

    def _enough(self) -> int:
        return max(_LEAST, math.ceil(math.log(_MISTAKEN) / math.log(max(0.01, self._loss))))


def next_smaller(mtu: int) -> int:
    """Return what to try where packets of this size vanish; the size itself where there is nothing smaller."""
    return next((size for size in _LADDER if size < mtu), mtu)
