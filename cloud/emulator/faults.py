"""Misbehaviour on demand: which fault, if any, meets the next call. Pure; chance is passed in.

A rule counts the calls that fit its action from the moment it is set. Where several rules fit, each of them acts; only
the first that answers in the API's stead (`error`, `lost`) does so. README.md lists the kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Final

from cloud.emulator.params import Body
from cloud.emulator.worldfile import BadWorld, Fault


class Kind(Enum):
    """What goes wrong."""

    ERROR = "error"  # an answer that is an error; nothing is done
    LOST = "lost"  # nothing is done, and no answer comes
    LATE = "late"  # it is done, and no answer comes
    SLOW = "slow"  # the answer comes after `seconds`
    STALE = "stale"  # a list shows what was `seconds` ago
    LOST_PAGE = "lost-page"  # a list ends after its first page, or shows none where there is only one


# What the service says with a code, where a rule says nothing else.
_TEXTS: Final = {
    "taskconflict": "The operation is too frequent, please wait a moment and try again.",
    "throttling": "Request was denied due to user flow control.",
    "internalerror": "The request processing has failed due to some unknown error, exception or failure.",
    "serviceunavailable": "The request has failed due to a temporary failure of the server.",
    "forbidden.ram": "User not authorized to operate on the specified resource, or this API doesn't support RAM.",
    "invalidsecuritytoken.expired": "Specified SecurityToken is expired.",
    "quotaexceeded": "Route entry quota exceeded in this route table.",
}


class BadFault(BadWorld):
    """The rule makes no sense; the message says why."""


@dataclass(slots=True)
class _Rule:
    fault: Fault
    kind: Kind
    seen: int = 0
    done: int = 0


class Faults:
    """The rules in force."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._rules: list[_Rule] = []

    def add(self, faults: Iterable[Fault]) -> None:
        """Put rules behind those that are there; raise `BadFault` and add none if one makes no sense."""
        self._rules += [_Rule(fault, _kind(fault)) for fault in faults]

    def clear(self) -> None:
        """Behave again."""
        self._rules.clear()

    def shown(self) -> list[Body]:
        """Return the rules, each with how many calls it has seen and met."""
        return [
            {**{name: getattr(rule.fault, name) for name in Fault.__slots__}, "seen": rule.seen, "met": rule.done}
            for rule in self._rules
        ]

    def meet(self, action: str) -> Sequence[tuple[Kind, Fault]]:
        """Return what happens to this call, and count it."""
        met: list[tuple[Kind, Fault]] = []
        for rule in self._rules:
            fault = rule.fault
            if not fnmatchcase(action, fault.action):
                continue
            rule.seen += 1
            if fault.nth and rule.seen != fault.nth:
                continue
            if fault.times and rule.done >= fault.times:
                continue
            if fault.probability < 1 and self._chance() >= fault.probability:
                continue
            rule.done += 1
            met.append((rule.kind, fault))
        return met


def message(fault: Fault) -> str:
    """Return the text of an error."""
    if fault.message:
        return fault.message
    code = fault.code.lower()
    return next((text for known, text in _TEXTS.items() if code == known or code.startswith(f"{known}.")), fault.code)


def without_pages(body: Body) -> Body:
    """Return a list's answer as if the pages behind the first had never been, or the first where it is the only one."""
    if body.get("NextToken"):
        return body | {"NextToken": ""}
    if body.get("PageNumber") == 1 and body.get("TotalCount", 0) > body.get("PageSize", 0):
        return body
    emptied: Body = {
        outer: {inner: [] for inner in value}
        for outer, value in body.items()
        if isinstance(value, dict) and all(isinstance(items, list) for items in value.values())
    }
    return body | emptied


def _kind(fault: Fault) -> Kind:
    try:
        kind = Kind(fault.kind)
    except ValueError:
        raise BadFault(f"kind {fault.kind!r} is none of {', '.join(each.value for each in Kind)}") from None
    if kind is Kind.ERROR and not fault.code:
        raise BadFault("a fault of kind error needs a code")
    if not 0 <= fault.probability <= 1 or fault.nth < 0 or fault.times < 0 or fault.seconds < 0:
        raise BadFault("probability is between 0 and 1; nth, times and seconds are not negative")
    return kind
