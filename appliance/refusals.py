"""CIDRs that the cloud would not take, and when each is asked for again. Pure.

A refusal concerns one CIDR; the others go on. It is tried again ever more rarely, should somebody have mended it, and
at once when the operator asks for something else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from appliance.entries import cloud_problem
from appliance.model import Intent, Network
from appliance.reconcile import Retry
from appliance.status import Layer, LayerState
from cloud.provider import CloudError

_SLOWEST: Final = 600.0  # seconds between tries


@dataclass(slots=True)
class _Refusal:
    intent: Intent
    layer: Layer
    retry: Retry


class Refusals:
    """`first`: seconds before the first new try; `jitter` as `Retry` takes it."""

    def __init__(self, first: float, jitter: Callable[[], float]) -> None:
        self._first = first
        self._jitter = jitter
        self._held: dict[Network, _Refusal] = {}

    def held(self, intent: Intent, now: float) -> Layer | None:
        """Return what is shown of a CIDR that is not to be asked for now, None for one that may be."""
        refusal = self._held.get(intent.network)
        if refusal is None or refusal.intent != intent or refusal.retry.wait(now) <= 0:
            return None
        return refusal.layer

    def refused(self, intent: Intent, error: CloudError, now: float) -> Layer:
        """Note that the cloud refused; return what is shown."""
        refusal = self._held.get(intent.network)
        problem = cloud_problem(error)
        layer = Layer(LayerState.ERROR, problem.text, problem.code)
        if refusal is None or refusal.intent != intent:
            retry = Retry(self._first, max(_SLOWEST, self._first), self._jitter)
            refusal = self._held[intent.network] = _Refusal(intent, layer, retry)
        refusal.layer = layer
        refusal.retry.failed(now)
        return layer

    def forget(self, network: Network) -> None:
        """Let it be asked for at once."""
        self._held.pop(network, None)

    def keep(self, networks: Collection[Network]) -> None:
        """Forget all but these."""
        self._held = {network: refusal for network, refusal in self._held.items() if network in networks}
