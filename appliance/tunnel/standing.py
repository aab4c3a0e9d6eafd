"""What a link is doing, as its control socket tells it, and why an attempt to keep it up failed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """What the link is doing."""

    CONNECTING = "connecting"
    UP = "up"
    DOWN = "down"


class LinkDown(Exception):
    """The attempt failed or the session ended. `code` is for machines, the message for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(slots=True)
class Standing:
    """What the control socket tells. Times are seconds since the epoch."""

    state: State
    since: float
    code: str | None = None
    reason: str | None = None
    address: str | None = None
    peer: str | None = None
    retry_at: float | None = None

    def become(
        self, state: State, *, code: str | None = None, reason: str | None = None, retry_at: float | None = None
    ) -> None:
        """Change to `state`; the addresses stay, and `since` if it is the state that it was."""
        if state is not self.state:
            self.since = time.time()
        self.state, self.code, self.reason, self.retry_at = state, code, reason, retry_at
