"""How often and how slowly the cloud is asked again. Pure; chance is passed in.

Aliyun wants about five seconds between writes of one VPC when it is busy, so the waits grow quickly; they are spread by
chance so that two appliances do not meet again at the same moment.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds, all of them, but for `tries`.

    `first`, `longest`: the wait after the first failure, and where doubling ends. `tries`: the failures of an operation
    after which its error is handed to the caller, who has a slower loop. `poll`: before the second look at an entry
    that settles; the pauses grow by half each time, up to ten `poll`. `settle`: how long that may take, and how long
    until a write that the cloud confirmed becomes visible.
    `connect`, `read`: time-outs of one call.
    """

    first: float = 1.0
    longest: float = 16.0
    tries: int = 5
    poll: float = 0.3
    settle: float = 90.0
    connect: float = 5.0
    read: float = 10.0

    def wait(self, failures: int, chance: float) -> float:
        """Return how long to wait after so many failures (at least 1); `chance` is in [0, 1]."""
        whole: float = min(self.longest, self.first * 2.0 ** min(failures - 1, 30))
        return whole * (0.5 + chance / 2)

    def look(self, looks: int) -> float:
        """Return how long to wait before looking again at what has been looked at so often (at least 1)."""
        pause: float = self.poll * min(10.0, 1.5 ** min(looks - 1, 30))
        return pause
