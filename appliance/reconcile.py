"""What to do next, as values: the decisions of both loops, without a socket and without a clock.

`forward_step` and `attract_step` are all that either loop decides about one CIDR. They are functions of their own so
that tests/appliance/test_phases.py can walk every interleaving of them with the operator, crashes and late requests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from appliance.model import Phase

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """What to change. Adds come before removes: the other order leaves a moment with neither."""

    add: tuple[T, ...]
    remove: tuple[T, ...]

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)


def plan(want: Iterable[T], have: Collection[T]) -> Plan[T]:
    """Return the difference, in the order in which `want` and `have` name things."""
    want = tuple(dict.fromkeys(want))
    wanted, there = frozenset(want), frozenset(have)
    return Plan(
        add=tuple(thing for thing in want if thing not in there),
        remove=tuple(thing for thing in have if thing not in wanted),
    )


class Installed(Enum):
    """How much of one CIDR the kernel holds."""

    NONE = "none"
    PART = "part"
    WHOLE = "whole"


class ForwardStep(Enum):
    """What `forward` does about one CIDR."""

    KEEP = "keep"
    ADD = "add"
    REMOVE = "remove"
    DROP = "drop"  # the record
    NOTHING = "nothing"


def forward_step(phase: Phase | None, installed: Installed) -> ForwardStep:
    """Decide for one CIDR; `phase` is None where nobody asks for it."""
    if phase in {Phase.PRESENT, Phase.LEAVING}:
        return ForwardStep.KEEP if installed is Installed.WHOLE else ForwardStep.ADD
    if installed is not Installed.NONE:
        return ForwardStep.REMOVE
    return ForwardStep.DROP if phase is Phase.WITHDRAWN else ForwardStep.NOTHING


class Entry(Enum):
    """What the cloud's route tables hold for one CIDR, all tables taken together."""

    ABSENT = "absent"
    READY = "ready"  # ours, in every table, settled, pointing here
    UNSETTLED = "unsettled"  # ours, but not READY: missing in a table, being changed, or pointing elsewhere
    FOREIGN = "foreign"  # somebody else's
    MIXED = "mixed"  # ours in one table, somebody else's in another


class Withhold(Enum):
    """What the policy for a link that is down asks of the cloud's entry."""

    NOTHING = "nothing"
    NEW = "new"  # make none while the link is not up
    ANY = "any"  # take away what is there: it has been down for long


class AttractStep(Enum):
    """What `attract` does about one CIDR."""

    REST = "rest"
    ENSURE = "ensure"
    WITHDRAW = "withdraw"
    MARK_WITHDRAWN = "mark-withdrawn"
    WAIT = "wait"  # for the kernel to carry it
    BLOCKED = "blocked"  # by a foreign entry
    STRAY = "stray"  # show it
    WITHHELD = "withheld"  # its link is down, and the operator wants no entry then


def attract_step(
    phase: Phase | None,
    entry: Entry,
    *,
    carried: bool,
    released: bool = False,
    withhold: Withhold = Withhold.NOTHING,
) -> AttractStep:
    """Decide for one CIDR, from an observation made after every earlier request was answered.

    An entry of ours is left where it is while the kernel does not carry its CIDR: that mends itself in a moment, and
    without the entry the VPC would send the packets elsewhere. `released`: it was asked for once and given back, so
    that an entry is what became of a request that landed late. `withhold`: what is asked for while its link is down;
    the kernel goes on carrying it, so that who still sends is answered. An entry of ours for which there is no such
    record means that the record is lost rather than that the entry is wrong: it is shown, and a person decides.
    """
    ours = entry in {Entry.READY, Entry.UNSETTLED, Entry.MIXED}
    if phase is Phase.PRESENT and withhold is Withhold.ANY and ours:
        return AttractStep.WITHDRAW
    if phase is Phase.PRESENT and withhold is not Withhold.NOTHING and entry is Entry.ABSENT:
        return AttractStep.WITHHELD
    if phase is Phase.PRESENT:
        if entry is Entry.READY:
            return AttractStep.REST
        if entry in {Entry.FOREIGN, Entry.MIXED}:
            return AttractStep.BLOCKED
        return AttractStep.ENSURE if carried else AttractStep.WAIT
    if ours:
        return AttractStep.WITHDRAW if phase is not None or released else AttractStep.STRAY
    return AttractStep.MARK_WITHDRAWN if phase is Phase.LEAVING else AttractStep.REST


class Retry:
    """When to try again: `first` seconds after the first failure, twice that after the next, never more than `cap`.

    `random` returns a float in [0, 1); the wait is spread over the upper half, since many appliances may have lost the
    same cloud at the same moment.
    """

    def __init__(self, first: float, cap: float, random: Callable[[], float]) -> None:
        self._first = first
        self._cap = cap
        self._random = random
        self._failures = 0
        self._due: float | None = None

    @property
    def failures(self) -> int:
        """Return how many failures there were in a row."""
        return self._failures

    def succeeded(self) -> None:
        """Start from the beginning."""
        self._failures, self._due = 0, None

    def failed(self, now: float) -> None:
        """Count one more; `now` is any monotonic clock's, in seconds."""
        longest = min(self._cap, self._first * float(1 << min(self._failures, 30)))
        self._failures += 1
        self._due = now + longest * (0.5 + self._random() / 2)

    def wait(self, now: float) -> float:
        """Return how many seconds there are still to wait."""
        return 0.0 if self._due is None else max(0.0, self._due - now)
