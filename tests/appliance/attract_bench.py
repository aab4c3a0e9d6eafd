"""The loop towards the cloud between a kernel and a cloud in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from appliance.attract import Attract
from appliance.guard import Facts
from appliance.intent import IntentStore
from appliance.model import Intent, Network
from appliance.status import LayerState
from cloud.provider import (
    CloudError,
    Provider,
    Vpc,
)
from tests.appliance.fakes import FakeCloud, until


@dataclass
class FakeForward:
    carrying: frozenset[Network] = frozenset()
    callbacks: list[Callable[[], None]] = field(default_factory=list)

    def on_carrying(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    def carry(self, *networks: Network) -> None:
        self.carrying = frozenset(networks)
        for callback in self.callbacks:
            callback()


@dataclass
class Bench:
    store: IntentStore
    cloud: FakeCloud
    forward: FakeForward
    attract: Attract
    facts: Facts = field(default_factory=lambda: Facts(links=frozenset({"hk"})))
    connect_error: CloudError | None = None

    async def attracting(self, network: Network) -> None:
        """Ask for a CIDR that the kernel carries, and wait until the cloud sends it here."""
        self.forward.carry(network)
        self.store.put(Intent(network, "hk"))
        await until(lambda: self.attract.layer(network).state is LayerState.OK)

    async def settled(self) -> None:
        """Wait for a whole pass that sent nothing."""
        while True:
            did, observed = len(self.cloud.did), self.cloud.observed
            self.attract.wake()
            await until(lambda before=observed: self.cloud.observed > before + 1 or self._idle(before))  # type: ignore[misc]
            if did == len(self.cloud.did):
                return

    def _idle(self, before: int) -> bool:
        return self.cloud.observed > before and not self.attract._wake.is_set()


@contextlib.asynccontextmanager
async def running(tmp_path: Path, *, clouded: bool = True, resync: float = 0.05) -> AsyncIterator[Bench]:
    store, cloud, forward = IntentStore(tmp_path / "nexthop.db"), FakeCloud(), FakeForward()

    async def connect() -> Provider:
        if bench.connect_error is not None:
            raise bench.connect_error
        return cloud

    async def facts(vpc: Vpc) -> Facts:
        return replace(bench.facts, vpc=vpc, intents=store.all())

    attract = Attract(
        store, connect if clouded else None, forward, facts, resync=resync, first_retry=0.01, jitter=lambda: 0.5
    )
    bench = Bench(store, cloud, forward, attract)
    task = asyncio.get_running_loop().create_task(attract.run())
    try:
        yield bench
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        store.close()
