"""What the loop sends to the cloud, and what it then knows of each CIDR: the layer that people are shown.

An answer speaks for each CIDR by itself: one that the cloud refuses is remembered with the reason, the others are as
good as before. So does an error about the whole, which tells what had been refused until then: the next request need
not begin with that again. `layers` is the loop's own, and is written here before a request and after its answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from typing import Final

from appliance.model import Network
from appliance.reconcile import AttractStep
from appliance.refusals import Refusals, Wish
from appliance.status import Layer, LayerState
from cloud.provider import CloudError, Provider
from cloud.provider import Refusals as Answer

log = logging.getLogger(__name__)

Layers = MutableMapping[Network, Layer]

_AT_ONCE: Final = 50  # CIDRs in one request: what the cloud takes in one call
_UNDER_WAY: Final = {
    AttractStep.ENSURE: Layer(LayerState.PENDING, "being added", "adding"),
    AttractStep.WITHDRAW: Layer(LayerState.PENDING, "being withdrawn", "withdrawing"),
}


def parts(networks: Sequence[Network]) -> Iterator[Sequence[Network]]:
    """Cut into what one request may hold."""
    for start in range(0, len(networks), _AT_ONCE):
        yield networks[start : start + _AT_ONCE]


async def request(
    provider: Provider,
    step: AttractStep,
    wishes: Mapping[Network, Wish],
    layers: Layers,
    refusals: Refusals,
    clock: Callable[[], float],
) -> None:
    """Have the entries added or taken out; remember what the cloud refuses of that. Raises `CloudError`."""
    layers.update(dict.fromkeys(wishes, _UNDER_WAY[step]))
    log.info("route entries: %s %s", step.value, _list(wishes))
    whole: CloudError | None = None
    try:
        refused: Answer = await (provider.ensure if step is AttractStep.ENSURE else provider.withdraw)(list(wishes))
    except CloudError as error:
        refused, whole = error.refused, error
    for network, wish in wishes.items():
        if network in refused:
            layer = layers[network] = refusals.refused(network, wish, refused[network], clock())
            log.warning("the cloud does not %s the route entry for %s: %s", step.value, network, layer.detail)
        elif whole is None:
            refusals.forget(network)
    if whole is not None:
        raise whole


def _list(networks: Collection[Network]) -> str:
    few = ", ".join(str(network) for network, _ in zip(networks, range(3), strict=False))
    return few if len(networks) <= 3 else f"{few} and {len(networks) - 3} more"
