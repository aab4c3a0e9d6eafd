"""The loop that sends a packet through each tunnel and waits for its answer: what is up and does not forward is down.

Each link that is up is asked for its far end; each CIDR with a probe target for that. Several signs in a row are needed
(`appliance.health`), and every change is told in the history.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
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
        self._healths: dict[str | Network, tuple[Target, Health]] = {}
        self._signs: dict[str | Network, deque[bool]] = {}

    def judged(self, status: LinkStatus) -> LinkStatus:
        """Return the link's status, down where nothing comes back through it."""
        target, health = self._healths.get(status.name, (None, Health()))
        if status.state != "up" or health.life is not Life.DEAD or target is None:
            return status
        return replace(status, state="down", code="no-path", reason=f"the session is up, but {health.why}")

    async def statuses(self) -> tuple[LinkStatus, ...]:
        """Ask every link, and judge what it says."""
        return tuple(self.judged(status) for status in await self._links.statuses())

    def layer(self, network: Network) -> Layer:
        """Return how far a CIDR's probe target is."""
        if network not in self._healths:
            return Layer(LayerState.ABSENT, "no probe target", "no-probe")
        target, health = self._healths[network]
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
        targets = await self._targets()
        self._healths = {
            key: known if (known := self._healths.get(key)) is not None and known[0] == target else (target, Health())
            for key, (target, _) in targets.items()
        }
        self._signs = {key: self._signs.get(key) or deque(maxlen=_SIGNS) for key in targets}
        async with asyncio.TaskGroup() as group:
            for key, (target, device) in targets.items():
                group.create_task(self._one(key, target, device))

    async def _targets(self) -> dict[str | Network, tuple[Target, str]]:
        up = {status.name: status for status in await self._links.statuses() if status.state == "up"}
        found: dict[str | Network, tuple[Target, str]] = {}
        for name, status in up.items():
            with contextlib.suppress(ValueError):
                found[name] = (Target(ip_address(status.peer)), status.device)
        for intent in self._store.all():
            if intent.probe is not None and intent.phase is Phase.PRESENT and intent.via in up:
                found[intent.network] = (intent.probe, up[intent.via].device)
        return found

    async def _one(self, key: str | Network, target: Target, device: str) -> None:
        health = self._healths[key][1]
        try:
            changed = health.sign(await self._ask(target, device))
            self._signs[key].append(True)
        except NoAnswer as error:
            changed = health.sign(None, str(error))
            self._signs[key].append(False)
        if not changed:
            return
        alive = health.life is Life.ALIVE
        log.info("the path to %s through %s is %s", target, device, health.life.value)
        what, detail = ("path works", str(target)) if alive else ("path broke", health.why)
        cidr = "" if isinstance(key, str) else str(key)
        with contextlib.suppress(StoreUnavailable):
            self._store.record(f"link {key}" if isinstance(key, str) else "probe", what, cidr=cidr, detail=detail)
