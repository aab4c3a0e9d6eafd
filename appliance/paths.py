"""The loop that sends a packet through each tunnel and waits for its answer: what is up and does not forward is down.

Each link that is up is asked for its far end; each CIDR with a probe target for that. Several signs in a row are needed
(`appliance.health`), and every change is told in the history.

A far end may drop pings by a firewall of its own while it forwards. So a link is down only where its far end has
answered since the session began, and nothing answers through it any more. One whose far end never did is "unproven" as
long as nothing else answers: that is shown, and no entry is withdrawn for it, since sealed probes prove the session.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Protocol

from appliance.health import Health, Life
from appliance.intent import StoreUnavailable
from appliance.model import Network, Phase
from appliance.options import Target
from appliance.pathprobe import NoAnswer, ask
from appliance.status import Layer, LayerState, LinkStatus

if TYPE_CHECKING:
    from appliance.linkwatch import Asked, Recorder

log = logging.getLogger(__name__)

EVERY: Final = 1.0  # seconds
_SIGNS: Final = 30  # the last half minute says how much is lost
Ask = Callable[[Target, str], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who is asked through which link. `since`: when the link's session began; another one is judged afresh."""

    target: Target
    link: str
    device: str
    since: float | None


class Judge(Protocol):
    """What others ask of `Paths`."""

    def judged(self, status: LinkStatus) -> LinkStatus:
        """Return the link's status, down where nothing comes back through it."""
        ...

    def layer(self, network: Network) -> Layer:
        """Return how far a CIDR's probe target is."""
        ...

    def loss(self, link: str) -> float | None:
        """Return which part of the last probes through a link went unanswered; None where none was sent."""
        ...


class Paths:
    """Run `run()` in a task; ask the rest at any time from the same event loop."""

    def __init__(self, links: Asked, store: Recorder, *, ask: Ask = ask, every: float = EVERY) -> None:
        self._links = links
        self._store = store
        self._ask = ask
        self._every = every
        self._asked: dict[str | Network, _Asked] = {}
        self._healths: dict[str | Network, Health] = {}
        self._signs: dict[str | Network, deque[bool]] = {}

    def judged(self, status: LinkStatus) -> LinkStatus:
        """Return the link's status: down where nothing comes back through it any more, unproven where nothing did."""
        own = self._healths.get(status.name)
        if status.state != "up" or own is None or own.life is not Life.DEAD:
            return status
        through = (self._healths[key] for key, asked in self._asked.items() if asked.link == status.name)
        if any(health.life is Life.ALIVE for health in through):
            return status
        if not own.proven:
            return replace(status, code="unproven", reason=f"the session is up, but nothing has proved it: {own.why}")
        return replace(status, state="down", code="no-path", reason=f"the session is up, but {own.why}")

    async def statuses(self) -> tuple[LinkStatus, ...]:
        """Ask every link, and judge what it says."""
        return tuple(self.judged(status) for status in await self._links.statuses())

    def layer(self, network: Network) -> Layer:
        """Return how far a CIDR's probe target is."""
        if network not in self._healths:
            return Layer(LayerState.ABSENT, "no probe target", "no-probe")
        target, health = self._asked[network].target, self._healths[network]
        if health.life is Life.DEAD:
            return Layer(LayerState.ERROR, health.why, "no-path")
        if health.life is Life.UNKNOWN:
            return Layer(LayerState.PENDING, f"no answer from {target} yet", "no-answer-yet")
        return Layer(LayerState.OK, f"{target} answers within {(health.rtt or 0) * 1000:.1f} ms")

    def loss(self, link: str) -> float | None:
        """Return which part of the last probes through a link went unanswered; None where none was sent."""
        signs = self._signs.get(link)
        return None if not signs else signs.count(False) / len(signs)

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            try:
                await self.probe()
            except (StoreUnavailable, OSError) as error:
                log.warning("nothing can be probed: %s", error)
            await asyncio.sleep(self._every)

    async def probe(self) -> None:
        """Ask everybody once, all at the same time."""
        before, self._asked = self._asked, await self._targets()
        self._healths = {
            key: self._healths[key] if before.get(key) == asked else Health() for key, asked in self._asked.items()
        }
        self._signs = {key: self._signs.get(key) or deque(maxlen=_SIGNS) for key in self._asked}
        async with asyncio.TaskGroup() as group:
            for key, asked in self._asked.items():
                group.create_task(self._one(key, asked))

    async def _targets(self) -> dict[str | Network, _Asked]:
        up = {status.name: status for status in await self._links.statuses() if status.state == "up"}
        found: dict[str | Network, _Asked] = {}
        for name, status in up.items():
            with contextlib.suppress(ValueError):
                found[name] = _Asked(Target(ip_address(status.peer)), name, status.device, status.since)
        for intent in self._store.all():
            if intent.probe is not None and intent.phase is Phase.PRESENT and intent.via in up:
                status = up[intent.via]
                found[intent.network] = _Asked(intent.probe, intent.via, status.device, status.since)
        return found

    async def _one(self, key: str | Network, asked: _Asked) -> None:
        health, target = self._healths[key], asked.target
        try:
            changed = health.sign(await self._ask(target, asked.device))
            self._signs[key].append(True)
        except NoAnswer as error:
            changed = health.sign(None, str(error))
            self._signs[key].append(False)
        if not changed:
            return
        alive = health.life is Life.ALIVE
        log.info("the path to %s through %s is %s", target, asked.device, health.life.value)
        broke = "path broke" if health.proven or not isinstance(key, str) else "path unproven"
        what, detail = ("path works", str(target)) if alive else (broke, health.why)
        cidr = "" if isinstance(key, str) else str(key)
        with contextlib.suppress(StoreUnavailable):
            self._store.record(f"link {key}" if isinstance(key, str) else "probe", what, cidr=cidr, detail=detail)
