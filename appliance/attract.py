"""The loop from intent to cloud: make the VPC send each CIDR here, but only what the kernel can carry.

A pass reads the route tables whole and acts on the difference, one request after the other (the cloud refuses
concurrent ones). A CIDR is marked WITHDRAWN only by a pass that saw no entry of ours for it and sent nothing for it: an
answer that never came may belong to a request that will still be carried out. After a pass that sent something the next
one follows at once and looks again.

Errors are told apart by what they ask for: some concern one CIDR, which then waits while the others go on; the rest
concern the cloud as a whole, and the pass ends. Nothing here ends the loop, and nothing here stops a packet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from appliance.guard import Facts, judge, refused
from appliance.intent import IntentStore, StoreUnavailable
from appliance.kernel.state import KernelError
from appliance.model import Intent, Network, Phase
from appliance.reconcile import AttractStep, Entry, Retry, Withhold, attract_step
from appliance.status import CloudStatus, Layer, LayerState, Problem
from cloud.provider import (
    CloudError,
    Conflict,
    Denied,
    Duplicate,
    EntryStatus,
    Observation,
    Owner,
    Provider,
    QuotaExceeded,
    Rejected,
    Throttled,
)

if TYPE_CHECKING:
    from cloud.provider import RouteEntry, Vpc

log = logging.getLogger(__name__)

_FIRST_RETRY: Final = 1.0
_SLOWEST: Final = 600.0  # seconds between tries of what the cloud refuses for good, should somebody have mended it
# These concern one CIDR: the others go on.
_OF_ONE: Final = (Duplicate, QuotaExceeded, Rejected)


class Carrier(Protocol):
    """What this needs of `appliance.forward.Forward`."""

    @property
    def carrying(self) -> frozenset[Network]:
        """The CIDRs whose kernel state is installed."""
        ...

    def on_carrying(self, callback: Callable[[], None]) -> None:
        """Call back when that has changed."""
        ...


Connect = Callable[[], Awaitable[Provider]]
"""Find the cloud; raises `CloudError`. It is tried until it succeeds: an appliance starts without its cloud, too."""

GatherFacts = Callable[["Vpc"], Awaitable[Facts]]


@dataclass(slots=True)
class _Failure:
    """One CIDR that the cloud will not take; not tried again before `retry` says so, or the intent changes."""

    intent: Intent
    layer: Layer
    retry: Retry


@dataclass(slots=True)
class _Seen:
    """What one pass has read, and what it found that nobody asked for."""

    observation: Observation
    facts: Facts
    released: frozenset[Network]
    strays: list[Network] = field(default_factory=list)


class Attract:
    """Run `run()` in a task; ask the rest at any time from the same event loop. Without `connect` there is no cloud."""

    def __init__(
        self,
        store: IntentStore,
        connect: Connect | None,
        carrier: Carrier,
        facts: GatherFacts,
        *,
        name: str = "aliyun",
        withhold: Callable[[Intent], Withhold] = lambda _intent: Withhold.NOTHING,
        resync: float = 60.0,
        first_retry: float = _FIRST_RETRY,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._connect = connect
        self._carrier = carrier
        self._facts = facts
        self._withhold = withhold
        self._name = name if connect is not None else "none"
        self._resync = resync
        self._jitter = jitter
        self._retry = Retry(first_retry, resync, jitter)
        self._wake = asyncio.Event()
        self._provider: Provider | None = None
        self._observation: Observation | None = None
        self._layers: dict[Network, Layer] = {}
        self._failures: dict[Network, _Failure] = {}
        self._strays: tuple[Network, ...] = ()
        self._error: CloudError | None = None
        self._problem: Problem | None = None
        store.on_change(self.wake)
        carrier.on_carrying(self.wake)

    # -- what others ask ------------------------------------------------------------------------------------------

    @property
    def observation(self) -> Observation | None:
        """What the last reading saw; None before the first."""
        return self._observation

    @property
    def error(self) -> CloudError | None:
        """Why the last pass could not speak with the cloud; None where it could."""
        return self._error

    def vpc(self) -> Vpc | None:
        """Return the network around us; None as long as the cloud has not answered."""
        return None if self._observation is None else self._observation.vpc

    def layer(self, network: Network) -> Layer:
        """Return how far the cloud is with one CIDR."""
        if self._connect is None:
            return Layer(LayerState.ABSENT, "no cloud configured", "no-cloud")
        layer = self._layers.get(network, Layer(LayerState.PENDING, "not looked at yet", "pending"))
        if self._problem is not None and layer.state is LayerState.PENDING:
            state = LayerState.ERROR if isinstance(self._error, Denied) else LayerState.PENDING
            return Layer(state, self._problem.text, self._problem.code)
        return layer

    def status(self) -> CloudStatus:
        """Return the cloud as last seen."""
        vpc = self.vpc()
        if vpc is None:
            return CloudStatus(self._name, error=self._problem)
        return CloudStatus(self._name, vpc.vpc_id, vpc.instance_id, vpc.tables, self._problem, self._strays)

    def wake(self) -> None:
        """Ask for a pass soon."""
        self._wake.set()

    # -- the loop -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Reconcile until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            again = await self._attempt(loop.time)
            if (wait := self._retry.wait(loop.time())) > 0:
                await asyncio.sleep(wait)
            elif not again:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._resync):
                        await self._wake.wait()

    async def _attempt(self, clock: Callable[[], float]) -> bool:
        """Make one pass and note how it went; return whether another should follow at once."""
        error, problem, again = None, None, False
        try:
            again = await self._pass(clock)
        except CloudError as failure:
            error, problem = failure, cloud_problem(failure)
        except (StoreUnavailable, KernelError, OSError) as failure:
            problem = Problem("attract", f"route entries are left as they are: {failure}", "it is tried again")
        except Exception as failure:  # a fault of ours must not end the loop
            log.exception("a pass failed in a way that nobody thought of")
            text = f"route entries are left as they are: {type(failure).__name__}: {failure}"
            problem = Problem("attract", text, "see the daemon's log; it is tried again")
        if problem is None:
            self._retry.succeeded()
            if self._problem is not None:
                log.info("the cloud answers again")
        else:
            self._retry.failed(clock())
            if problem != self._problem:
                log.warning("route entries cannot be reconciled: %s", problem.text)
        self._error, self._problem = error, problem
        return again

    # -- one pass -------------------------------------------------------------------------------------------------

    async def _pass(self, clock: Callable[[], float]) -> bool:
        """Look, and do what is to be done about each CIDR; return whether anything was sent."""
        if self._connect is None:
            for intent in self._store.all():
                self._store.withdrawn(intent.network)
            return False
        if self._provider is None:
            self._provider = await self._connect()
        observation = self._observation = await self._provider.observe()
        facts = await self._facts(observation.vpc)
        seen = _Seen(observation, facts, self._store.released())
        wanted = [intent.network for intent in self._store.all()]
        ours = [entry.destination for entry in observation.entries if entry.owner is Owner.OURS]
        self._layers = {network: layer for network, layer in self._layers.items() if network in wanted}
        self._failures = {network: failure for network, failure in self._failures.items() if network in wanted}
        sent = False
        for network in dict.fromkeys([*wanted, *ours]):
            sent |= await self._one(self._provider, network, seen, clock)
            if sent and self._wake.is_set():
                return True  # something changed while we waited for the cloud: look again before going on
        self._strays = tuple(seen.strays)
        return sent

    async def _one(self, provider: Provider, network: Network, seen: _Seen, clock: Callable[[], float]) -> bool:
        """Do what is to be done about one CIDR; return whether anything was sent."""
        intent = self._store.get(network)  # afresh: the requests before this one took their time
        step = attract_step(
            None if intent is None else intent.phase,
            classify(seen.observation, network),
            carried=network in self._carrier.carrying,
            released=network in seen.released,
            withhold=Withhold.NOTHING if intent is None else self._withhold(intent),
        )
        if step is AttractStep.WITHDRAW:
            await self._withdraw(provider, network)
            return True
        if intent is None:
            if step is AttractStep.STRAY:
                seen.strays.append(network)
            return False
        if step is AttractStep.ENSURE:
            return await self._ensure(provider, intent, seen.facts, clock)
        if step is AttractStep.MARK_WITHDRAWN:
            self._store.withdrawn(network)
        self._layers[network] = _layer(step, intent, seen.observation)
        return False

    async def _withdraw(self, provider: Provider, network: Network) -> None:
        self._layers[network] = Layer(LayerState.PENDING, "being withdrawn", "withdrawing")
        log.info("withdrawing the route entry for %s", network)
        await provider.withdraw(network)

    async def _ensure(self, provider: Provider, intent: Intent, facts: Facts, clock: Callable[[], float]) -> bool:
        """Add the entry, unless the guard forbids it or the cloud has just refused it; return whether it was sent."""
        network = intent.network
        if against := refused(judge(network, facts, via=intent.via)):
            self._layers[network] = Layer(LayerState.ERROR, against[0].text, against[0].code)
            return False
        failure = self._failures.get(network)
        if failure is not None and failure.intent == intent and failure.retry.wait(clock()) > 0:
            self._layers[network] = failure.layer
            return False
        self._layers[network] = Layer(LayerState.PENDING, "being added", "adding")
        log.info("adding the route entry for %s", network)
        try:
            await provider.ensure(network)
        except _OF_ONE as error:
            if failure is None or failure.intent != intent:
                retry = Retry(self._resync, max(_SLOWEST, self._resync), self._jitter)
                failure = _Failure(intent, Layer(LayerState.ERROR, "", ""), retry)
            problem = cloud_problem(error)
            failure.layer = Layer(LayerState.ERROR, problem.text, problem.code)
            failure.retry.failed(clock())
            self._failures[network] = failure
            self._layers[network] = failure.layer
            log.warning("the route entry for %s cannot be added: %s", network, problem.text)
        else:
            self._failures.pop(network, None)
        return True


def classify(seen: Observation, network: Network) -> Entry:
    """Return what the route tables hold for this CIDR, all of ours taken together."""
    entries = [entry for entry in seen.to(network) if entry.table in seen.vpc.tables]
    ours = [entry for entry in entries if entry.owner is Owner.OURS]
    if len(ours) < len(entries):
        return Entry.MIXED if ours else Entry.FOREIGN
    if not ours:
        return Entry.ABSENT
    good = {entry.table for entry in ours if _is_good(entry, seen.vpc)}
    return Entry.READY if good == set(seen.vpc.tables) and len(ours) == len(good) else Entry.UNSETTLED


def _is_good(entry: RouteEntry, vpc: Vpc) -> bool:
    return entry.status is EntryStatus.AVAILABLE and entry.next_hop == vpc.instance_id


def _layer(step: AttractStep, intent: Intent, seen: Observation) -> Layer:
    """Return what a step that sends nothing says of its CIDR."""
    if step is AttractStep.BLOCKED:
        theirs = next(entry for entry in seen.to(intent.network) if entry.owner is not Owner.OURS)
        where = f"{theirs.table} already sends it to {theirs.next_hop or 'the VPC itself'}"
        named = f" ({theirs.name})" if theirs.name else ""
        return Layer(LayerState.ERROR, f"{where}{named}, by an entry that is not ours", "foreign-entry")
    if step is AttractStep.WITHHELD:
        return Layer(LayerState.ABSENT, f"withdrawn while link {intent.via} is down, as asked for", "withheld")
    if intent.phase is not Phase.PRESENT:
        return Layer(LayerState.PENDING, "the cloud sends it here no more", "withdrawn")
    if step is AttractStep.WAIT:
        return Layer(LayerState.PENDING, "waits until the kernel carries it", "waiting-kernel")
    return Layer(LayerState.OK, f"{', '.join(seen.vpc.tables)} -> {seen.vpc.instance_id}")


def cloud_problem(error: CloudError) -> Problem:
    """Return an error as a person should see it. Support asks for the request id."""
    code, step = next((found for kind, *found in _PROBLEMS if isinstance(error, kind)), _UNAVAILABLE)
    asked = f" [{', '.join(filter(None, (error.code, error.request_id)))}]" if error.code or error.request_id else ""
    return Problem(code, f"cloud: {error}{asked}", step)


_UNAVAILABLE: Final = ["cloud-unavailable", "packets keep flowing; it is tried again"]
_PROBLEMS: Final[tuple[tuple[type[CloudError], str, str], ...]] = (
    (Throttled, "cloud-throttled", "nothing: it is tried again, slower"),
    (Conflict, "cloud-busy", "nothing: it is tried again when the other change of the VPC is done"),
    (Duplicate, "foreign-entry", "remove that entry in the cloud's console, or the CIDR here"),
    (QuotaExceeded, "cloud-quota", "raise the route table's quota, or add one larger CIDR instead of several"),
    (Denied, "cloud-denied", "give the instance's role the permissions for route entries"),
    (Rejected, "cloud-rejected", "remove the CIDR, or mend what the cloud complains about"),
)
