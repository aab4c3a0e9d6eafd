"""Messages that wait for a connection: bounded in time and in bytes, and what does not fit is refused at once. Pure.

The originals queue ten packets, heartbeats among them, and the client waits for room for ever. Here a packet is refused
once the oldest has waited for `LONGEST`: the senders must hear of a slow line by a lost packet, now. A little is always
taken, so that a stall of the process is not mistaken for one of the line. Heartbeats go before all packets.
"""

from __future__ import annotations

from collections import deque
from typing import Final

_CHUNK: Final = 64 << 10
_URGENT: Final = 8


class Outbox:
    """What one connection has still to send. Times are seconds."""

    LONGEST: Final = 0.02
    ALWAYS: Final = _CHUNK
    MOST: Final = 1 << 20

    def __init__(self) -> None:
        self._urgent: deque[bytes] = deque()
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._length = 0
        self._chunk = memoryview(b"")
        self._since: float | None = None

    def __len__(self) -> int:
        """Return how many bytes wait."""
        return self._length + len(self._chunk) + sum(map(len, self._urgent))

    @property
    def since(self) -> float | None:
        """Return since when the oldest packet waits, None when there is none."""
        return self._since if self._since is not None else self._waiting[0][0] if self._waiting else None

    def say(self, message: bytes) -> bool:
        """Send a heartbeat before any packet; return False when too many wait already."""
        if len(self._urgent) >= _URGENT:
            return False
        self._urgent.append(message)
        return True

    def put(self, message: bytes, now: float) -> bool:
        """Take a packet's message; return False when it would wait too long."""
        since, length = self.since, self._length + len(self._chunk)
        late = since is not None and now - since >= self.LONGEST
        if length + len(message) > (self.ALWAYS if late else self.MOST):
            return False
        self._waiting.append((now, message))
        self._length += len(message)
        return True

    def chunk(self) -> memoryview:
        """Return what to send next, empty when nothing waits; say with `sent` how much of it went."""
        if not self._chunk:
            self._chunk = memoryview(b"".join(self._gather()))
        return self._chunk

    def sent(self, count: int) -> None:
        """Forget the first `count` bytes of `chunk`."""
        self._chunk = self._chunk[count:]
        if not self._chunk:
            self._since = None

    def _gather(self) -> list[bytes]:
        parts, total = list(self._urgent), 0
        self._urgent.clear()
        if self._waiting:
            self._since = self._waiting[0][0]
        while self._waiting and total < _CHUNK:
            _, message = self._waiting.popleft()
            parts.append(message)
            total += len(message)
        self._length -= total
        return parts
