"""How the links do, as seen over time: asked of each gtun again and again, so that changes are told and counted.

A link's state is the last answer of its gtun. What is remembered is only what an answer cannot hold: since when a link
is not up, and how often a gtun had repaired its device when it was asked last.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from appliance.intent import StoreUnavailable
from appliance.options import WhenDown
from appliance.reconcile import Withhold

if TYPE_CHECKING:
    from appliance.model import Intent, Network
    from appliance.status import LinkStatus

log = logging.getLogger(__name__)

EVERY: Final = 0.5  # seconds between questions
_REPAIRED: Final = "repaired_"


class Asked(Protocol):
    """What this needs of `appliance.links.Links`."""

    async def statuses(self) -> tuple[LinkStatus, ...]:
        """Ask all of them at once."""
        ...


class Recorder(Protocol):
    """What this needs of `appliance.intent.IntentStore`."""

    def all(self) -> tuple[Intent, ...]:
        """Return every intent."""
        ...

    def record(self, who: str, what: str, *, cidr: str = "", detail: str = "") -> None:
        """Write a line of history."""
        ...


class LinkWatch:
    """Run `run()` in a task; ask the rest at any time from the same event loop."""

    def __init__(
        self, links: Asked, store: Recorder, repaired: Callable[[str, str, int], None], *, every: float = EVERY
    ) -> None:
        self._links = links
        self._store = store
        self._repaired = repaired  # told the kind, the device, and how often
        self._every = every
        self._last: dict[str, LinkStatus] = {}
        self._down_since: dict[str, float] = {}
        self._withheld: frozenset[Network] = frozenset()
        self._usable: frozenset[Network] = frozenset()
        self._callbacks: list[Callable[[], None]] = []

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each look that changes what `withhold` says."""
        self._callbacks.append(callback)

    def down_for(self, link: str, now: float) -> float | None:
        """Return for how many seconds a link has not been up; None where it is up, or was not asked yet."""
        since = self._down_since.get(link)
        return None if since is None else now - since

    def withhold(self, intent: Intent) -> Withhold:
        """Return what this CIDR's policy asks of the cloud's entry, as of the last look."""
        if intent.when_down is WhenDown.KEEP or self._is_up(intent.via):
            return Withhold.NOTHING
        return Withhold.ANY if intent.network in self._withheld else Withhold.NEW

    def _is_up(self, link: str) -> bool:
        return link in self._last and self._last[link].state == "up"

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            try:
                statuses = await self._links.statuses()
            except OSError as error:
                log.warning("the links cannot be asked: %s", error)
            else:
                self.take(statuses, asyncio.get_running_loop().time())
            await asyncio.sleep(self._every)

    def take(self, statuses: tuple[LinkStatus, ...], now: float) -> None:
        """Note what the links said; `now` in seconds of any monotonic clock."""
        known = {status.name: status for status in statuses}
        for link in self._last.keys() - known.keys():
            self._down_since.pop(link, None)
        for name, status in known.items():
            before = self._last.get(name)
            self._count(before, status)
            if status.state == "up":
                self._down_since.pop(name, None)
            else:
                self._down_since.setdefault(name, now)
            was_up = before is not None and before.state == "up"
            if was_up != (status.state == "up"):
                self._tell(status)
        self._last = known
        if self._judge(now):
            for callback in self._callbacks:
                callback()

    def _judge(self, now: float) -> bool:
        """Work out whose entries are to go; return whether anything changed for anybody who has such a policy."""
        try:
            intents = [intent for intent in self._store.all() if intent.when_down is WhenDown.WITHDRAW]
        except StoreUnavailable:
            return False  # as it was
        before = self._withheld, self._usable
        self._withheld = frozenset(intent.network for intent in intents if self._has_been_down(intent, now))
        self._usable = frozenset(intent.network for intent in intents if self._is_up(intent.via))
        return before != (self._withheld, self._usable)

    def _has_been_down(self, intent: Intent, now: float) -> bool:
        down = self.down_for(intent.via, now)
        return down is not None and down >= intent.hold_down

    def _tell(self, status: LinkStatus) -> None:
        up = status.state == "up"
        detail = status.address if up else f"{status.code}: {status.reason}".strip(": ")
        with contextlib.suppress(StoreUnavailable):
            self._store.record(f"link {status.name}", "came up" if up else "went down", detail=detail)

    def _count(self, before: LinkStatus | None, status: LinkStatus) -> None:
        was: Mapping[str, int] = before.counters if before is not None and before.pid == status.pid else {}
        for key, count in status.counters.items():
            if key.startswith(_REPAIRED) and (more := count - was.get(key, 0)) > 0 and before is not None:
                self._repaired(key.removeprefix(_REPAIRED), status.device, more)
