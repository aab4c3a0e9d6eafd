"""Both ends of the conversation between the two daemons over a real socket; what is said on one side is played."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from appliance.forwardclient import ForwardClient
from appliance.forwardserver import ForwardServer
from appliance.forwardtalk import State
from appliance.intent import IntentStore
from appliance.kernel.state import Device
from appliance.links import Links
from appliance.model import Intent, Network
from appliance.status import Layer, LayerState
from tests.appliance.fakes import POD, SERVICE, until

BOTH = frozenset({POD, SERVICE})
OK = Layer(LayerState.OK, "routed to tun-hk")


@dataclass
class Speaker:
    """Plays `Forward`."""

    now: State = field(default_factory=lambda: State(ready=True, carrying=BOTH, layers={POD: OK}))
    woken: int = 0

    def state(self) -> State:
        return self.now

    def wake(self) -> None:
        self.woken += 1

    async def rules(self) -> Mapping[str, str]:
        return {"nftables": "table inet nexthop"}


@dataclass
class Border:
    server: ForwardServer
    client: ForwardClient
    speaker: Speaker
    store: IntentStore
    path: Path
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def end(self, name: str) -> None:
        self.tasks[name].cancel()
        await asyncio.gather(self.tasks.pop(name), return_exceptions=True)

    def run(self, name: str) -> None:
        work = self.server.run(self.speaker) if name == "server" else self.client.run()
        self.tasks[name] = asyncio.get_running_loop().create_task(work)


@contextlib.asynccontextmanager
async def border(place: Path, *, started: bool = True, patience: float = 5.0) -> AsyncIterator[Border]:
    store = IntentStore(place / "nexthop.db")

    async def devices() -> Mapping[str, Device]:
        return {}

    path = place / "forward" / "forward.sock"
    client = ForwardClient(path, store, Links(place, place), devices, retry=0.002)
    made = Border(ForwardServer(path, patience=patience), client, Speaker(), store, path)
    if started:
        made.run("server")
        made.run("client")
        await until(client.ready)
    try:
        yield made
    finally:
        for name in tuple(made.tasks):
            await made.end(name)
        store.close()


def withdrawn(store: IntentStore, network: Network) -> None:
    store.put(Intent(network, "hk"))
    store.leave(network)
    store.withdrawn(network)
