"""The loop from intent to cloud: make the VPC send each CIDR here, but only what the kernel can carry.

A pass reads the route tables whole and acts on the difference: many CIDRs in one request, but never so many that the
operator's next wish would wait for long, and one request after the other (the cloud refuses concurrent ones). A CIDR is
marked WITHDRAWN only by a pass that saw no entry of ours for it and sent nothing for it: an answer that never came may
belong to a request that will still be carried out. After a pass that sent something the next one follows at once and
looks again.

Errors are told apart by what they are about: some concern one CIDR, which then waits while the others go on, and comes
after them when it is its turn again; the rest concern the cloud as a whole, and the pass ends. But what is to be
withdrawn is tried even where adding failed so: an operator who takes something back need not wait for what was asked
for beside it. Nothing here ends the loop, and nothing here stops a packet.

What the guard comes to be against is barred (`appliance.bars`): the kernel lets go of it, and it is not asked for.

What somebody else did to an entry of ours between two passes goes into the history: deleted, it is put back; given
another next hop or name, it is shown as a conflict and left alone, until it is adopted at a person's wish.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from appliance.adopt import NotAdoptable, require_adoptable
from appliance.bars import bars, trespassing
from appliance.entries import classify, cloud_problem, found, layer_of
from appliance.entryrequests import parts, request
from appliance.guard import Facts, Reason, judge, refused
from appliance.intent import IntentStore, StoreUnavailable
from appliance.kernel.state import KernelError
from appliance.model import Intent, Network, Phase
from appliance.reconcile import AttractStep, Retry, Withhold, attract_step
from appliance.refusals import Refusals, Wish
from appliance.status import CloudStatus, Layer, LayerState, Problem
from cloud.provider import CloudError, Denied, Observation, Owner, Provider

if TYPE_CHECKING:
    from cloud.provider import RouteEntry, Vpc

log = logging.getLogger(__name__)

_FIRST_RETRY: Final = 1.0


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
class _Seen:
    """What one pass has read, what it found that nobody asked for, and what it will ask the cloud for."""

    observation: Observation
    facts: Facts
    released: frozenset[Network]
    trespassing: Mapping[Network, Reason] = field(default_factory=dict)
    strays: list[Network] = field(default_factory=list)
    ensure: list[Network] = field(default_factory=list)
    withdraw: list[Network] = field(default_factory=list)


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
        timed: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._timed = timed
        self._store = store
        self._connect = connect
        self._carrier = carrier
        self._facts = facts
        self._withhold = withhold
        self._name = name if connect is not None else "none"
        self._resync = resync
        self._rest = resync  # seconds until the next pass, where nothing happens before
        self._retry = Retry(first_retry, resync, jitter)
        self._wake = asyncio.Event()
        self._provider: Provider | None = None
        self._observation: Observation | None = None
        self._layers: dict[Network, Layer] = {}
        self._refusals = Refusals(resync, jitter)
        self._strays: tuple[Network, ...] = ()
        self._error: CloudError | None = None
        self._problem: Problem | None = None
        self._repairs: Counter[str] = Counter()
        self.turns = 0
        """Grows with each pass and each request: one that grows no more is stuck."""
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

    def entries(self) -> tuple[RouteEntry, ...]:
        """Return every route entry as last seen."""
        return () if self._observation is None else self._observation.entries

    def carrying(self) -> frozenset[Network]:
        """Return the CIDRs that the kernel carries."""
        return self._carrier.carrying

    def provider(self) -> Provider | None:
        """Return the cloud itself; None as long as it was not found."""
        return self._provider

    def repairs(self) -> Mapping[str, int]:
        """Return how often which kind of foreign change was mended, or met and left alone."""
        return dict(self._repairs)

    async def adopt(self, network: Network, *, who: str = "operator") -> None:
        """Make the entry that somebody else has for this CIDR ours; raise `NotAdoptable` or `CloudError`."""
        if self._provider is None or self._observation is None:
            raise NotAdoptable("no-cloud", "the cloud was not found yet")
        facts = await self._facts(self._observation.vpc)
        require_adoptable(network, self._store.get(network), self._carrier.carrying, facts)
        await self._provider.adopt(network)
        self._refusals.forget(network)
        self._store.record(who, "adopted", cidr=str(network), detail="an entry that was not ours")
        self.wake()

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
        return CloudStatus(
            self._name, vpc.vpc_id, vpc.instance_id, vpc.tables, self._problem, self._strays, self._left()
        )

    def _left(self) -> tuple[tuple[str, Network], ...]:
        elsewhere = () if self._observation is None else self._observation.elsewhere
        return tuple((entry.table, entry.destination) for entry in elsewhere if entry.destination not in self._strays)

    def wake(self) -> None:
        """Ask for a pass soon."""
        self._wake.set()

    # -- the loop -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Reconcile until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            began = loop.time()
            again = await self._attempt(loop.time)
            self._timed(loop.time() - began)
            if (wait := self._retry.wait(loop.time())) > 0:
                await asyncio.sleep(wait)
            elif not again:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._rest):
                        await self._wake.wait()

    async def _attempt(self, clock: Callable[[], float]) -> bool:
        """Make one pass and note how it went; return whether another should follow at once."""
        self.turns += 1
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
            self._store.bar({})
            return False
        if self._provider is None:
            self._provider = await self._connect()
        observation = self._observation = await self._provider.observe()
        facts = await self._facts(observation.vpc)
        seen = _Seen(observation, facts, self._store.released())
        intents = self._store.all()
        wanted = {intent.network: None for intent in intents}
        there = (*observation.entries, *observation.elsewhere)
        ours = [entry.destination for entry in there if entry.owner is Owner.OURS]
        self._rest = self._resync
        self._layers = {network: layer for network, layer in self._layers.items() if network in wanted}
        self._refusals.keep({*wanted, *ours})
        seen.trespassing = trespassing(intents, observation.vpc)
        self._store.bar(bars(intents, seen.trespassing, self._store.barred(), frozenset(ours)))
        for network in dict.fromkeys([*wanted, *ours]):
            self._decide(network, seen, clock)
        self._strays = tuple(seen.strays)
        return await self._send(self._provider, seen, clock)

    def _step(self, network: Network, seen: _Seen) -> AttractStep:
        """Decide about one CIDR, from what is asked for and carried at this moment."""
        intent = self._store.get(network)
        present = intent is not None and intent.phase is Phase.PRESENT
        withhold = Withhold.NOTHING if intent is None else self._withhold(intent)
        if network in self._store.barred():
            withhold = Withhold.ANY  # what became of a request that landed late goes again
        takes, goes = present and withhold is Withhold.NOTHING, not present or withhold is Withhold.ANY
        return attract_step(
            None if intent is None else intent.phase,
            classify(seen.observation, network, takes=takes, goes=goes),
            carried=network in self._carrier.carrying,
            released=network in seen.released,
            withhold=withhold,
        )

    def _decide(self, network: Network, seen: _Seen, clock: Callable[[], float]) -> None:
        """Do what needs no request, and note what does."""
        step, intent = self._step(network, seen), self._store.get(network)
        if step is AttractStep.WITHDRAW:
            if (layer := self._held(network, (step, intent), clock)) is None:
                seen.withdraw.append(network)
            elif intent is not None:
                self._layers[network] = layer
            else:
                seen.strays.append(network)
            return
        if intent is None:
            if step is AttractStep.STRAY:
                seen.strays.append(network)
            return
        self._notice(step, intent, seen.observation)
        if step is AttractStep.ENSURE:
            if self._may_ensure(intent, seen.facts, clock):
                seen.ensure.append(network)
            return
        if step is AttractStep.MARK_WITHDRAWN:
            self._store.withdrawn(network)
        elif step is AttractStep.REST:
            self._refusals.forget(network)
        why = seen.trespassing.get(network)
        against = None if why is None else Layer(LayerState.ERROR, why.text, why.code)
        self._layers[network] = against or layer_of(step, intent, seen.observation)

    def _notice(self, step: AttractStep, intent: Intent, seen: Observation) -> None:
        """Write into the history what somebody did to an entry that was right when we last looked."""
        before = self._layers.get(intent.network)
        if before is None or before.state is not LayerState.OK or intent.phase is not Phase.PRESENT:
            return
        if step is AttractStep.ENSURE:
            what, detail = "drift", f"its entry was gone or changed ({found(intent.network, seen)}); it is put back"
        elif step is AttractStep.BLOCKED:
            what, detail = "conflict", layer_of(step, intent, seen).detail
        else:
            return
        self._repairs[f"cloud-{what}"] += 1
        log.warning("the route entry for %s: %s: %s", intent.network, what, detail)
        self._store.record("attract", what, cidr=str(intent.network), detail=detail)

    def _may_ensure(self, intent: Intent, facts: Facts, clock: Callable[[], float]) -> bool:
        """Say whether to ask for the entry: not if the guard forbids it, or the cloud has just refused it."""
        network = intent.network
        if against := refused(judge(network, facts, via=intent.via)):
            self._layers[network] = Layer(LayerState.ERROR, against[0].text, against[0].code)
            return False
        if (layer := self._held(network, (AttractStep.ENSURE, intent), clock)) is not None:
            self._layers[network] = layer
            return False
        self._layers[network] = Layer(LayerState.PENDING, "to be added", "adding")
        return True

    def _held(self, network: Network, wish: Wish, clock: Callable[[], float]) -> Layer | None:
        """Return what is shown of a CIDR that is not to be sent for now, and have it looked at again when it may be."""
        now = clock()
        layer = self._refusals.held(network, wish, now)
        if layer is not None:
            self._rest = min(self._rest, self._refusals.wait(network, now))
        return layer

    async def _send(self, provider: Provider, seen: _Seen, clock: Callable[[], float]) -> bool:
        """Send what the pass decided on, in parts; return whether anything was sent.

        Between two parts the operator may have changed their mind, so each CIDR is decided on again before it is sent,
        and after a change the rest waits for another look. Raises the first `CloudError` when the rest was tried.
        """
        sent, failed = False, dict[AttractStep, CloudError]()
        for step, part in self._parts(seen):
            if sent and self._wake.is_set():
                break
            wishes = {net: (step, self._store.get(net)) for net in part if self._step(net, seen) is step}
            if wishes and step not in failed:
                sent = True
                self.turns += 1
                try:
                    await request(provider, step, wishes, self._layers, self._refusals, clock)
                except CloudError as error:
                    failed[step] = error
        if failed:
            raise next(iter(failed.values()))
        return sent

    def _parts(self, seen: _Seen) -> list[tuple[AttractStep, Sequence[Network]]]:
        """Return what to send, in order: what the cloud has refused before comes last, and holds up nothing else."""
        found: list[tuple[AttractStep, Sequence[Network]]] = []
        for again in (False, True):
            for step, networks in ((AttractStep.ENSURE, seen.ensure), (AttractStep.WITHDRAW, seen.withdraw)):
                mine = [net for net in networks if self._refusals.known(net, (step, self._store.get(net))) is again]
                found += ((step, part) for part in parts(mine))
        return found
