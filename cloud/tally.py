"""How often which call was sent to the cloud, and what it said: OK, or the code of its refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


class Tally:
    """Counts for as long as the daemon lives; for its event loop alone."""

    def __init__(self) -> None:
        self._calls: Counter[tuple[str, str]] = Counter()

    def note(self, action: str, code: str) -> None:
        """Count one call."""
        self._calls[action, code] += 1

    def all(self) -> Mapping[tuple[str, str], int]:
        """Return the counts, by action and code."""
        return dict(self._calls)
