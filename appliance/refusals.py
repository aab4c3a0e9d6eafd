"""CIDRs that the cloud would not take, or not let go of, and when each is asked for again. Pure.

A refusal concerns one CIDR; the others go on. It is tried again ever more rarely, should somebody have mended it, and
at once when the operator asks for something else. What may pass by itself is first tried again sooner.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from appliance.entries import cloud_problem
from appliance.model import Intent, Network
from appliance.reconcile import AttractStep, Retry
from appliance.status import Layer, LayerState
from cloud.provider import CloudError, Conflict, Throttled, Unavailable

_SLOWEST: Final = 600.0  # seconds between tries
_SOONER: Final = 0.1
_PASSING: Final = (Conflict, Throttled, Unavailable)

Wish = tuple[AttractStep, Intent | None]
"""What was sent for a CIDR, and what was asked for then; nothing, where it was to be let go of."""


@dataclass(slots=True)
class _Refusal:
    wish: Wish
    layer: Layer
    retry: Retry


class Refusals:
    """`first`: seconds before the first new try; `jitter` as `Retry` takes it."""

    def __init__(self, first: float, jitter: Callable[[], float]) -> None:
        self._first = first
        self._jitter = jitter
        self._held: dict[Network, _Refusal] = {}

    def held(self, network: Network, wish: Wish, now: float) -> Layer | None:
        """Return what is shown of a CIDR that is not to be sent for now, None for one that may be."""
        refusal = self._held.get(network)
        if refusal is None or refusal.wish != wish or refusal.retry.wait(now) <= 0:
            return None
        return refusal.layer

    def wait(self, network: Network, now: float) -> float:
        """Return in how many seconds it may be sent again."""
        refusal = self._held.get(network)
        return 0.0 if refusal is None else refusal.retry.wait(now)

    def known(self, network: Network, wish: Wish) -> bool:
        """Tell whether this was refused when it was sent last."""
        refusal = self._held.get(network)
        return refusal is not None and refusal.wish == wish

    def refused(self, network: Network, wish: Wish, error: CloudError, now: float) -> Layer:
        """Note that the cloud refused; return what is shown."""
        refusal = self._held.get(network)
        problem = cloud_problem(error)
        layer = Layer(LayerState.ERROR, problem.text, problem.code)
        if refusal is None or refusal.wish != wish:
            first = self._first * (_SOONER if isinstance(error, _PASSING) else 1)
            retry = Retry(first, max(_SLOWEST, first), self._jitter)
            refusal = self._held[network] = _Refusal(wish, layer, retry)
        refusal.layer = layer
        refusal.retry.failed(now)
        return layer

    def forget(self, network: Network) -> None:
        """Let it be sent at once."""
        self._held.pop(network, None)

    def keep(self, networks: Collection[Network]) -> None:
        """Forget all but these."""
        self._held = {network: refusal for network, refusal in self._held.items() if network in networks}
