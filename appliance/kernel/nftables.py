"""The firewall in nftables: one table of our own, `inet nexthop`, with one set for each way to treat a CIDR.

Whatever differs in rules replaces the table whole, in one transaction (``nft -f -``); a CIDR more or fewer changes the
sets alone (nftset.py). Nothing is read as long as the rule set's generation is that of the last reading.

An accept here ends only our own chain: a drop in anybody else's base chain on the same hook still wins. That cannot
be mended without editing what is not ours, so obstacles.py reports it. Our chains come before the usual priorities,
because the first chain that translates a connection decides its address.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from appliance.kernel import nftset, nfttext
from appliance.kernel.firewall import Backend, FirewallError
from appliance.kernel.netlink import NETFILTER, Interrupted, Talk
from appliance.kernel.nfttext import TABLE
from appliance.kernel.prefixes import Prefix
from appliance.kernel.rules import Layout, Line

_TIMEOUT: Final = 10.0  # seconds
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a reading found. `members`: None where a set holds what is no prefix. `generation`: None if it moved on."""

    generation: int | None
    lines: tuple[Line, ...]
    faults: tuple[str, ...]
    members: Mapping[str, frozenset[Prefix] | None]


class Nftables(Backend):
    """The rules in table ``inet nexthop`` of the network namespace that the calling thread is in."""

    name = "nftables"

    def __init__(self, *, alone: bool = False) -> None:
        super().__init__(alone=alone)
        self._seen: _Seen | None = None

    def faults(self, wanted: Layout) -> tuple[str, ...]:
        """Read our table unless nobody changed anything since."""
        with _talk() as talk:
            seen = self._look(talk)
        if seen.faults:
            return seen.faults
        if seen.lines != wanted.lines:
            return (f"the rules in table inet {TABLE} are not those wanted",)
        return tuple(
            f"the set {name} is not as wanted"
            for name in sorted(seen.members.keys() | wanted.sets.keys())
            if seen.members.get(name) != wanted.sets.get(name)
        )

    def put(self, wanted: Layout) -> None:
        """Change the sets where no more is needed, else replace our table."""
        with _talk() as talk:
            seen = self._look(talk)
            if seen.faults or seen.lines != wanted.lines or not self._change(talk, seen, wanted):
                _nft("-f", "-", text=nfttext.render(wanted))
                self.writes += 1

    def purge(self) -> None:
        """Delete our table."""
        if _nft("-t", "list", "table", "inet", TABLE, may_fail=True) is not None:
            _nft("-f", "-", text=f"add table inet {TABLE}\ndelete table inet {TABLE}\n")
            self.writes += 1

    def _change(self, talk: Talk, seen: _Seen, wanted: Layout) -> bool:
        """Change the sets from what was seen; return whether they are as wanted now."""
        added: list[tuple[str, Prefix]] = []
        removed: list[tuple[str, Prefix]] = []
        generation = seen.generation
        if generation is None:
            return False
        for name, prefixes in wanted.sets.items():
            there = seen.members.get(name)
            if there is None:
                return False
            added += [(name, prefix) for prefix in prefixes - there]
            removed += [(name, prefix) for prefix in there - prefixes]
        if not added and not removed:
            return False
        try:
            nftset.change(talk, TABLE, generation, added, removed)
            self.writes += 1
            if nftset.generation(talk) == generation + 1:  # ours was the one transaction: the rules are as seen
                members = {name: nftset.members(talk, TABLE, name) for name in {name for name, _ in added + removed}}
                self._seen = _Seen(generation + 1, seen.lines, (), {**seen.members, **members})
        except (OSError, Interrupted):
            return False
        return self._look(talk).members == wanted.sets

    def _look(self, talk: Talk) -> _Seen:
        for _ in range(_TRIES):
            before = nftset.generation(talk)
            if self._seen is not None and self._seen.generation == before:
                return self._seen
            with contextlib.suppress(Interrupted, FileNotFoundError):  # changed while we read it
                self._seen = _read(talk, before)
                if nftset.generation(talk) == before:
                    return self._seen
        self._seen = None
        return _Seen(None, (), ("the rule set changes too fast to be read",), {})


def _read(talk: Talk, generation: int) -> _Seen:
    answer = _nft("-j", "-t", "list", "table", "inet", TABLE, may_fail=True)
    if answer is None:
        return _Seen(generation, (), (f"table inet {TABLE} is missing",), {})
    lines, sets, faults = nfttext.read(json.loads(answer)["nftables"])
    return _Seen(generation, lines, faults, {name: nftset.members(talk, TABLE, name) for name in sets})


@contextlib.contextmanager
def _talk() -> Iterator[Talk]:
    try:
        with Talk(NETFILTER) as talk:
            yield talk
    except OSError as failure:
        raise FirewallError(f"cannot ask the kernel for nftables: {failure.strerror}") from None


def _nft(*arguments: str, text: str | None = None, may_fail: bool = False) -> str | None:
    """Run nft; None when it fails because there is no such table, and that is allowed."""
    try:
        done = subprocess.run(
            ["nft", *arguments], input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except FileNotFoundError:
        raise FirewallError("there is no nft program: install nftables") from None
    except subprocess.TimeoutExpired:
        raise FirewallError(f"nft did not answer within {_TIMEOUT:g} s") from None
    if done.returncode == 0:
        return done.stdout
    if may_fail and "No such file or directory" in done.stderr:
        return None
    reason = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    raise FirewallError(f"nft {arguments[0]} failed: {reason[0]}")
