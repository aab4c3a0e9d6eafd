"""The loop from intent to kernel: make it able to carry each CIDR, and say which it carries.

A pass reads intents, links and kernel, and acts on the difference (`appliance.install`). `carrying` grows only after a
CIDR was added and read back, and shrinks *before* anything is removed, since `attract` sends the VPC's traffic here on
the strength of it. `attract` lives in another process, so what is to be removed is announced to it, and removed only
when it has answered: it may know by then that the CIDR is asked for again. Without an answer everything stays.

Passes are woken by what changes: an intent, a link, a netlink event. Two slow polls stand behind, since rules of
iptables and sysctls change without an event. A failing pass is shown, logged and tried again; it never ends the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from appliance.forwardtalk import State
from appliance.install import Installer, KernelRoutes, Pass, Sysctls, keep_sysctls
from appliance.intent import StoreUnavailable
from appliance.kernel import listing
from appliance.kernel.choose import Chosen
from appliance.kernel.state import KernelError, Network
from appliance.model import Intent, Phase
from appliance.reconcile import ForwardStep, Retry
from appliance.status import FirewallStatus, Layer, LayerState

log = logging.getLogger(__name__)


_Asked = tuple[tuple[Intent, ...], Mapping[str, str]]
"""The intents, and each link's device."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: between looks at firewall and sysctls, between whole passes, and how long to wait after a failure."""

    glance: float = 0.5
    whole: float = 10.0
    first_retry: float = 0.25
    last_retry: float = 5.0


class Intents(Protocol):
    """What this needs of `appliance.intentreader.IntentReader`."""

    def all(self) -> tuple[Intent, ...]:
        """Return every intent; raise `StoreUnavailable`."""
        ...


class Devices(Protocol):
    """What this needs of `appliance.links.Links`."""

    def devices(self) -> Mapping[str, str]:
        """Return each link's device, by the link's name; raise `OSError`."""
        ...


class Listener(Protocol):
    """Who acts on what is carried, and keeps the records: see `appliance.forwardserver.ForwardServer`."""

    def listens(self) -> bool:
        """Return whether anybody is there."""
        ...

    async def removing(self, carrying: frozenset[Network], networks: frozenset[Network]) -> frozenset[Network] | None:
        """Announce; return what must stay, or None where nobody answers."""
        ...

    def gone(self, revisions: Mapping[Network, int]) -> None:
        """Say that the kernel holds nothing of these any more, whose records were read at these revisions."""
        ...

    def repaired(self, kind: str, what: str, count: int = 1) -> None:
        """Tell a repair."""
        ...

    def passed(self, seconds: float) -> None:
        """Tell how long a pass took."""
        ...

    def publish(self) -> None:
        """Tell the state as it is now, if it is a new one."""
        ...


class Forward:
    """Run `run()` in a task; ask the rest at any time from the same event loop.

    `progressed` is called whenever a pass or a glance has come to its end. `inbound`: the links whose far end may begin
    connections to the VPC.
    """

    def __init__(
        self,
        intents: Intents,
        links: Devices,
        routes: KernelRoutes,
        chosen: Chosen,
        listener: Listener,
        *,
        progressed: Callable[[], None] = lambda: None,
        sysctls: Sysctls = keep_sysctls,
        inbound: Collection[str] = (),
        pace: Pace = Pace(),
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._source = intents
        self._links = links
        self._routes = routes
        self._chosen = chosen
        self._listener = listener
        self._progressed = progressed
        self._installer = Installer(routes, chosen, sysctls, self._repaired, inbound)
        self._pace = pace
        self._retry = Retry(pace.first_retry, pace.last_retry, jitter)
        self._wake = asyncio.Event()
        self._kernel = asyncio.Lock()  # one pass or one glance at a time
        self._carrying: frozenset[Network] = frozenset()
        self._layers: Mapping[Network, Layer] = {}
        self._repairs: Counter[str] = Counter()
        self._problem: str | None = None
        self._ready = False
        self._asked: _Asked | None = None  # as last read, for when it cannot be

    # -- what others ask ------------------------------------------------------------------------------------------

    @property
    def carrying(self) -> frozenset[Network]:
        """The CIDRs whose kernel state is installed."""
        return self._carrying

    def layer(self, network: Network) -> Layer:
        """Return how far the kernel is with one CIDR."""
        return self._layers.get(network, Layer(LayerState.PENDING, "not looked at yet", "pending"))

    def problem(self) -> str | None:
        """Return why the last pass failed; None where it did not."""
        return self._problem

    def ready(self) -> bool:
        """Return whether a pass has come to its end since the start, whatever it found."""
        return self._ready

    def repairs(self) -> Mapping[str, int]:
        """Return how often something of ours that had vanished was put back, by kind."""
        return self._repairs.copy()

    def state(self) -> State:
        """Return all of it."""
        firewall = FirewallStatus(self._chosen.firewall.name, self._chosen.fallback_reason or "")
        return State(self._ready, self._problem, self._carrying, self._layers, firewall, dict(self._repairs))

    async def rules(self) -> Mapping[str, str]:
        """Return the text of every firewall rule of this machine."""
        return await asyncio.to_thread(listing.rules)

    def wake(self) -> None:
        """Ask for a pass soon."""
        self._wake.set()

    # -- the loop -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(), name="forward: netlink")
            group.create_task(self._glance(), name="forward: glance")
            loop = asyncio.get_running_loop()
            while True:
                self._wake.clear()
                began = loop.time()
                await self._attempt()
                self._listener.passed(loop.time() - began)
                if (wait := self._retry.wait(loop.time())) > 0:
                    await asyncio.sleep(wait)  # events do not cut it short: our own failing writes make some
                else:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._pace.whole):
                            await self._wake.wait()

    async def _attempt(self) -> None:
        try:
            async with self._kernel:
                trouble = await self._pass()
        except (KernelError, StoreUnavailable, OSError) as error:
            trouble = [str(error)]
        except Exception as error:  # a fault of ours: the packets flow on, and so must this loop
            log.exception("a pass failed in a way that nobody thought of")
            trouble = [f"{type(error).__name__}: {error}"]
        problem = "; ".join(dict.fromkeys(trouble)) or None
        if problem is None:
            self._retry.succeeded()
            if self._problem is not None:
                log.info("the kernel is as wanted again")
        else:
            self._retry.failed(asyncio.get_running_loop().time())  # the wait begins now, however long it took
            if problem != self._problem:
                log.warning("the kernel is not as wanted: %s", problem)
        self._problem = problem
        self._ready = True
        self._listener.publish()
        self._progressed()

    async def _watch(self) -> None:
        """Turn netlink events into passes; where the subscription breaks, subscribe again."""
        while True:
            try:
                async for _ in self._routes.changes():
                    self.wake()
            except Exception as error:
                log.warning("no netlink events for a moment: %s", error)
            await asyncio.sleep(self._pace.glance)
            self.wake()  # something may have happened unseen

    async def _glance(self) -> None:
        """Look at what changes without an event."""
        while True:
            await asyncio.sleep(self._pace.glance)
            if self._problem is not None:
                continue  # a pass is due anyway
            try:
                async with self._kernel:
                    is_off = await self._installer.is_off()
            except Exception:
                is_off = True
            if is_off:
                self.wake()
            self._listener.publish()  # a sysctl is mended on the spot, and counted
            self._progressed()

    # -- one pass -------------------------------------------------------------------------------------------------

    async def _pass(self) -> list[str]:
        """Do all there is to do; return what went wrong without keeping the rest from being done."""
        (intents, devices), trouble = self._read()
        done = await self._installer.install(intents, devices, self._commit)
        trouble += done.trouble
        self._carrying = done.carrying()
        self._layers = {intent.network: self._layer(intent, done) for intent in done.intents}
        withdrawn = [intent for intent in done.intents if intent.phase is Phase.WITHDRAWN]
        gone = {intent.network: intent.revision for intent in withdrawn if done.step(intent) is ForwardStep.DROP}
        if gone:
            self._listener.publish()  # first that they are carried no more: once dropped they may be asked for anew
            self._listener.gone(gone)
        if len(gone) < len(withdrawn) and self._listener.listens():
            self.wake()  # asked for again meanwhile, or its route will not go
        return trouble

    def _read(self) -> tuple[_Asked, list[str]]:
        """Return what is asked for and which links there are; where either cannot be read, both as last read, and why.

        Both, since they live in one place: when that is away, no link is gone because its file is not there.
        """
        try:
            self._asked = self._source.all(), self._links.devices()
        except (StoreUnavailable, OSError) as error:
            if self._asked is None:
                raise  # with nothing known, nothing is touched: the packets flow on
            return self._asked, [str(error)]
        return self._asked, []

    async def _commit(self, carrying: frozenset[Network], networks: frozenset[Network]) -> frozenset[Network] | None:
        """Have everybody know what is carried, before anything is removed; return what must stay after all."""
        self._carrying = carrying
        return await self._listener.removing(carrying, networks)

    def _layer(self, intent: Intent, done: Pass) -> Layer:
        network = intent.network
        if intent.phase is Phase.WITHDRAWN:
            return Layer(LayerState.PENDING, "being removed", "removing")
        if network in self._carrying:
            return Layer(LayerState.OK, f"routed to {done.devices[intent.via]}")
        waiting = Layer(LayerState.PENDING, "; ".join(done.trouble) or "not installed yet", "kernel")
        return done.refused.get(network) or done.want.blocked.get(network) or waiting

    def _repaired(self, kind: str, what: str, count: int = 1) -> None:
        self._repairs[kind] += count
        log.warning("repaired what somebody else had changed: %s (%s)", kind, what)
        self._listener.repaired(kind, what, count)
