"""Whether something lives, judged by several signs in a row, so that one lost packet is no outage. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

RISE: Final = 2
FALL: Final = 3


class Life(Enum):
    """What the signs say."""

    UNKNOWN = "unknown"
    ALIVE = "alive"
    DEAD = "dead"


@dataclass(slots=True)
class Health:
    """`rise` good signs in a row make it ALIVE, `fall` bad ones DEAD; the very first good one is believed at once."""

    rise: int = RISE
    fall: int = FALL
    life: Life = Life.UNKNOWN
    row: int = 0  # signs in a row against what is believed
    rtt: float | None = None  # seconds, of the last good sign
    why: str = ""  # of the last bad one
    proven: bool = False  # whether there was ever a good one

    def sign(self, rtt: float | None, why: str = "") -> bool:
        """Take a sign: how long the round trip took, or None and why it failed. Return whether `life` changed."""
        if rtt is None:
            self.why = why
        else:
            self.rtt, self.proven = rtt, True
        believed = Life.ALIVE if rtt is not None else Life.DEAD
        if believed is self.life:
            self.row = 0
            return False
        self.row += 1
        needed = self.fall if believed is Life.DEAD else 1 if self.life is Life.UNKNOWN else self.rise
        if self.row < needed:
            return False
        self.life, self.row = believed, 0
        return True
