"""What the loop sends to the cloud, and what it then knows of each CIDR: the layer that people are shown.

An answer speaks for each CIDR by itself: one that the cloud refuses is remembered with the reason, the others are as
good as before. `layers` is the loop's own, and is written here before a request and after its answer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from typing import Final

from appliance.entries import cloud_problem
from appliance.model import Intent, Network
from appliance.refusals import Refusals
from appliance.status import Layer, LayerState
from cloud.provider import Provider

log = logging.getLogger(__name__)

Layers = MutableMapping[Network, Layer]

_AT_ONCE: Final = 50  # CIDRs in one request: what the cloud takes in one call


def parts(networks: Sequence[Network]) -> Iterator[Sequence[Network]]:
    """Cut into what one request may hold."""
    for start in range(0, len(networks), _AT_ONCE):
        yield networks[start : start + _AT_ONCE]


async def ensure(
    provider: Provider,
    intents: Mapping[Network, Intent | None],
    layers: Layers,
    refusals: Refusals,
    clock: Callable[[], float],
) -> None:
    """Add the entries for what was asked; remember which of them the cloud refuses. Raises `CloudError`."""
    for network in intents:
        layers[network] = Layer(LayerState.PENDING, "being added", "adding")
    log.info("adding the route entries for %s", _list(intents))
    refused = await provider.ensure(list(intents))
    for network, intent in intents.items():
        error = refused.get(network)
        if error is None or intent is None:
            refusals.forget(network)
            continue
        layer = layers[network] = refusals.refused(intent, error, clock())
        log.warning("the route entry for %s cannot be added: %s", network, layer.detail)


async def withdraw(provider: Provider, networks: Sequence[Network], layers: Layers) -> None:
    """Take the entries out. Raises `CloudError`."""
    for network in networks:
        layers[network] = Layer(LayerState.PENDING, "being withdrawn", "withdrawing")
    log.info("withdrawing the route entries for %s", _list(networks))
    for network, error in (await provider.withdraw(networks)).items():
        problem = cloud_problem(error)
        layers[network] = Layer(LayerState.ERROR, problem.text, problem.code)
        log.warning("the route entry for %s cannot be withdrawn: %s", network, problem.text)


def _list(networks: Collection[Network]) -> str:
    few = ", ".join(str(network) for network, _ in zip(networks, range(3), strict=False))
    return few if len(networks) <= 3 else f"{few} and {len(networks) - 3} more"
