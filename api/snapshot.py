"""All layers at one moment, gathered for whoever asks: status, events, metrics, explain."""

from __future__ import annotations

from api import links, resources
from api.parts import Parts
from appliance.intent import StoreUnavailable
from appliance.status import LinkStatus, Status


async def gather(parts: Parts) -> Status:
    """Return how everything does. Raises nothing that a broken machine can cause: that is what it tells of."""
    found, trouble = await _links(parts)
    trouble = trouble or parts.store.trouble
    try:
        wanted = resources.statuses(parts)
    except (StoreUnavailable, OSError) as error:
        wanted, trouble = (), str(error)
    return Status(
        links=found,
        cidrs=wanted,
        firewall=parts.kernel.firewall(),
        cloud=parts.cloud.status(),
        kernel_problem=parts.kernel.problem(),
        store_problem=trouble,
        drift_repairs={**parts.kernel.repairs(), **parts.cloud.repairs()},
        meddling=parts.kernel.meddling(),
    )


async def _links(parts: Parts) -> tuple[tuple[LinkStatus, ...], str | None]:
    """Return how the links do, or why their files cannot be read."""
    try:
        return await links.statuses(parts), None
    except OSError as error:
        return (), str(error)
