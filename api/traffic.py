"""/v1/traffic: what went through each link in the last ten minutes, and the loop that samples it."""

from __future__ import annotations

import asyncio
import logging
import time

from fastapi import APIRouter
from pydantic.dataclasses import dataclass

from api import links
from api.parts import Parts
from api.schema import SHOWN
from appliance.traffic import EVERY, Sample

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, config=SHOWN)
class LineResource:
    """One link over time; all lists are as long as `at`."""

    at: tuple[float, ...]
    """The moments, in seconds since the epoch, oldest first."""
    tx_bps: tuple[float, ...]
    """Bits a second into the tunnel."""
    rx_bps: tuple[float, ...]
    """Bits a second out of the tunnel."""
    rtt_ms: tuple[float | None, ...]
    """The round trip, in milliseconds; null while the link is not up."""
    loss: tuple[float | None, ...]
    """Which part of the last half minute's probes was lost, 0 to 1; null while none is sent."""


@dataclass(frozen=True, slots=True, config=SHOWN)
class TrafficResource:
    """The body of GET /v1/traffic."""

    interval_s: float
    """Seconds between two samples."""
    links: dict[str, LineResource]
    """The last ten minutes of each link, by its name."""


async def sample(parts: Parts) -> None:
    """Sample every link until cancelled."""
    while True:
        try:
            found = await links.statuses(parts)
        except OSError as error:
            log.warning("traffic cannot be sampled: %s", error)
        else:
            losses = {each.name: parts.paths.loss(each.name) for each in found} if parts.paths is not None else {}
            parts.traffic.take(time.time(), found, losses)
        await asyncio.sleep(EVERY)


def router(parts: Parts) -> APIRouter:
    """Return the endpoint."""
    routes = APIRouter(tags=["links"])

    @routes.get("/v1/traffic")
    async def show() -> TrafficResource:
        """Show throughput, round trip and loss of each link over the last ten minutes."""
        return TrafficResource(EVERY, {name: _line(samples) for name, samples in parts.traffic.all().items()})

    return routes


def _line(samples: tuple[Sample, ...]) -> LineResource:
    return LineResource(
        at=tuple(each.at for each in samples),
        tx_bps=tuple(each.tx_bps for each in samples),
        rx_bps=tuple(each.rx_bps for each in samples),
        rtt_ms=tuple(each.rtt_ms for each in samples),
        loss=tuple(each.loss for each in samples),
    )
