"""The small interface of what puts `Rules` into the kernel, and what its implementations share.

Both implementations write the same `Layout` (rules.py) into chains of their own, which are hooked once. Nothing of
anybody else is ever flushed, moved or edited.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

from appliance.kernel.rules import Layout, Rules, layout
from appliance.kernel.state import Refused


class FirewallError(Refused):
    """The rules are not in the kernel as wanted; the message names the rule or table and the reason."""


class Firewall(Protocol):
    """Where the rules live. Calls block for some milliseconds, at worst for the time-out of a lock: use a thread.

    `writes` counts transactions that the kernel took. Every method raises `FirewallError` and nothing else.
    """

    name: str
    writes: int

    def holds(self, rules: Rules) -> bool:
        """Whether what is in force is exactly what `write` would have left."""
        ...

    def write(self, rules: Rules) -> None:
        """Make `rules` be what is in force, and read it back; write nothing where it is so already."""
        ...

    def purge(self) -> None:
        """Remove every trace of ours; none there is no error."""
        ...


class Backend(ABC):
    """What the implementations share: they look and put, this compares. One call at a time.

    `alone`: no other program can be in this network namespace, so there is nobody to wait for.
    """

    name: str

    def __init__(self, *, alone: bool = False) -> None:
        self.writes = 0
        self._alone = alone
        self._latest = (Rules(), layout(Rules()))  # the same rules are asked for again and again

    @abstractmethod
    def faults(self, wanted: Layout) -> tuple[str, ...]:
        """Read what there is; return texts of how it differs from `wanted`, none where it does not."""

    @abstractmethod
    def put(self, wanted: Layout) -> None:
        """Bring our chains and sets to `wanted`, changing no more than differs, and hook them."""

    @abstractmethod
    def purge(self) -> None:
        """Remove every trace of ours; none there is no error."""

    def spell(self, rules: Rules) -> None:
        """Put the rules into words without the kernel, as far as this back-end does that; raise `FirewallError`."""
        self._layout(rules)

    def holds(self, rules: Rules) -> bool:
        """Whether what is in force is exactly what `write` would have left."""
        return not self.faults(self._layout(rules))

    def write(self, rules: Rules) -> None:
        """Make `rules` be what is in force, and read it back; write nothing where it is so already."""
        wanted = self._layout(rules)
        if not self.faults(wanted):
            return
        self.put(wanted)
        if faults := self.faults(wanted):
            raise FirewallError(f"{self.name} took the rules but they are not there: {'; '.join(faults)}")

    def _layout(self, rules: Rules) -> Layout:
        known, found = self._latest
        if rules != known:
            found = layout(rules)
            self._latest = (rules, found)
        return found
