"""The loop from intent to kernel: make it able to carry each CIDR, and say which it carries.

A pass reads intents, links and kernel, and acts on the difference (`appliance.install`). `carrying` grows only after a
CIDR was added and read back, and shrinks *before* anything is removed, since `attract` sends the VPC's traffic here on
the strength of it.

Passes are woken by what changes: an intent, a link, a netlink event. Two slow polls stand behind, since rules of
iptables and sysctls change without an event. A failing pass is shown, logged and tried again; it never ends the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from appliance.install import Installer, KernelRoutes, Pass, Sysctls, keep_sysctls
from appliance.intent import IntentStore, StoreUnavailable
from appliance.kernel.choose import Chosen
from appliance.kernel.state import Device, KernelError, Network
from appliance.links import Links
from appliance.model import Intent, Phase
from appliance.reconcile import ForwardStep, Retry
from appliance.status import FirewallStatus, Layer, LayerState

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: between looks at firewall and sysctls, between whole passes, and how long to wait after a failure."""

    glance: float = 0.5
    whole: float = 10.0
    first_retry: float = 0.25
    last_retry: float = 5.0


class Forward:
    """Run `run()` in a task; ask the rest at any time from the same event loop."""

    def __init__(
        self,
        store: IntentStore,
        links: Links,
        routes: KernelRoutes,
        chosen: Chosen,
        *,
        sysctls: Sysctls = keep_sysctls,
        pace: Pace = Pace(),
        jitter: Callable[[], float] = random.random,
        timed: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._timed = timed
        self._store = store
        self._links = links
        self._routes = routes
        self._chosen = chosen
        self._installer = Installer(routes, chosen, sysctls, self.repaired)
        self._pace = pace
        self._retry = Retry(pace.first_retry, pace.last_retry, jitter)
        self._wake = asyncio.Event()
        self._kernel = asyncio.Lock()  # one pass or one glance at a time
        self._callbacks: list[Callable[[], None]] = []
        self._carrying: frozenset[Network] = frozenset()
        self._layers: Mapping[Network, Layer] = {}
        self._repairs: Counter[str] = Counter()
        self._problem: str | None = None
        self._ready = False
        self._intents: tuple[Intent, ...] | None = None  # as last read, for when they cannot be
        store.on_change(self.wake)
        links.on_change(self.wake)

    # -- what others ask ------------------------------------------------------------------------------------------

    @property
    def carrying(self) -> frozenset[Network]:
        """The CIDRs whose kernel state is installed."""
        return self._carrying

    @property
    def healthy(self) -> str | None:
        """Why the last pass failed; None where it did not."""
        return self._problem

    @property
    def drift_repairs(self) -> Counter[str]:
        """How often something of ours that had vanished was put back, by kind."""
        return self._repairs.copy()

    def on_carrying(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever `carrying` has changed."""
        self._callbacks.append(callback)

    def layer(self, network: Network) -> Layer:
        """Return how far the kernel is with one CIDR."""
        return self._layers.get(network, Layer(LayerState.PENDING, "not looked at yet", "pending"))

    def problem(self) -> str | None:
        """Return why the last pass failed; None where it did not."""
        return self._problem

    def ready(self) -> bool:
        """Return whether a pass has come to its end since the start, whatever it found."""
        return self._ready

    def firewall(self) -> FirewallStatus:
        """Return the back-end in use."""
        return FirewallStatus(self._chosen.firewall.name, self._chosen.fallback_reason or "")

    def repairs(self) -> Mapping[str, int]:
        """Return `drift_repairs`."""
        return self.drift_repairs

    async def devices(self) -> Mapping[str, Device]:
        """Return the network devices as they are now. Raises `KernelError`."""
        return (await self._routes.observe()).devices

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
                await self._attempt(began)
                self._timed(loop.time() - began)
                if (wait := self._retry.wait(loop.time())) > 0:
                    await asyncio.sleep(wait)  # events do not cut it short: our own failing writes make some
                else:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._pace.whole):
                            await self._wake.wait()

    async def _attempt(self, now: float) -> None:
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
            self._retry.failed(now)
            if problem != self._problem:
                log.warning("the kernel is not as wanted: %s", problem)
        self._problem = problem
        self._ready = True

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

    # -- one pass -------------------------------------------------------------------------------------------------

    async def _pass(self) -> list[str]:
        """Do all there is to do; return what went wrong without keeping the rest from being done."""
        trouble = []
        try:
            self._intents = self._store.all()
        except StoreUnavailable as error:
            if self._intents is None:
                raise  # with nothing known, nothing is touched: the packets flow on
            trouble.append(str(error))
        devices = {link.name: link.device for link in self._links.all()}
        done = await self._installer.install(self._intents, devices, self._commit)
        trouble += done.trouble
        self._layers = {intent.network: self._layer(intent, done) for intent in done.intents}
        for intent in done.intents:
            if done.step(intent) is ForwardStep.DROP:
                self._store.drop(intent.network)
            elif intent.phase is Phase.WITHDRAWN:
                self.wake()  # asked for again meanwhile, or its route will not go
        return trouble

    def _commit(self, carrying: frozenset[Network]) -> frozenset[Network]:
        """Publish what is carried, before anything is removed; return what was asked for again since the pass began.

        That stays as it is: `attract` may have seen it, and relied on what `carrying` said so far.
        """
        if carrying != self._carrying:
            self._carrying = carrying
            for callback in self._callbacks:
                callback()
        going = frozenset(intent.network for intent in self._intents or () if intent.phase is Phase.WITHDRAWN)
        if not going:
            return going
        try:
            now = self._store.all()
        except StoreUnavailable:
            return going  # unsure: let them be
        return going & {intent.network for intent in now if intent.phase is not Phase.WITHDRAWN}

    def _layer(self, intent: Intent, done: Pass) -> Layer:
        network = intent.network
        if intent.phase is Phase.WITHDRAWN:
            return Layer(LayerState.PENDING, "being removed", "removing")
        if network in self._carrying:
            return Layer(LayerState.OK, f"routed to {done.devices[intent.via]}")
        waiting = Layer(LayerState.PENDING, "; ".join(done.trouble) or "not installed yet", "kernel")
        return done.refused.get(network) or done.want.blocked.get(network) or waiting

    def repaired(self, kind: str, what: str, count: int = 1) -> None:
        """Count and tell a repair; gtun's are handed in from outside."""
        self._repairs[kind] += count
        log.warning("repaired what somebody else had changed: %s (%s)", kind, what)
        with contextlib.suppress(StoreUnavailable):
            self._store.record("forward", f"repaired {kind}", detail=what)
