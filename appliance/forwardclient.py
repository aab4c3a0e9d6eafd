"""nexthopd's end of the conversation with nexthop-forward: what the kernel is like, as last heard.

`carrying` is what `attract` relies on when it lets the VPC send packets here, so it holds only while somebody answers
for it: with the connection gone it is empty. Then nothing is added to the cloud, and what is there stays. It shrinks
before anything is removed: `Removing` is answered in the one moment in which both the new `carrying` and the phases of
the intents are known, with nothing in between, so that no decision that is made before rests on what holds after.

The database has one writer, this process: what was repaired and what may be forgotten is written down here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

from appliance.forwardline import Line
from appliance.forwardtalk import (
    LINE_LIMIT,
    BadMessage,
    Gone,
    Message,
    Passed,
    Removing,
    Repaired,
    Show,
    Shown,
    State,
    Stays,
    Wake,
)
from appliance.intent import IntentStore, StoreUnavailable
from appliance.meddling import Meddling
from appliance.model import Network, Phase
from appliance.status import FirewallStatus, Layer, LayerState, Repeated

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.kernel.state import Device
    from appliance.links import Links

log = logging.getLogger(__name__)

_RETRY: Final = 0.1  # seconds between tries to connect
_SHOW: Final = 15.0  # seconds for an answer to `Show`
_DISK: Final = 1.0  # seconds until a record that could not be dropped is spoken of again


class ForwardClient:
    """Run `run()` in a task; ask the rest at any time from the same event loop.

    `timed` is told how many seconds each pass took.
    """

    def __init__(
        self,
        path: Path,
        store: IntentStore,
        links: Links,
        devices: Callable[[], Awaitable[Mapping[str, Device]]],
        *,
        retry: float = _RETRY,
        timed: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._path = path
        self._store = store
        self._retry = retry
        self._devices = devices
        self._timed = timed
        self._peer: Line | None = None
        self._away: str | None = "it was not reached yet"
        self._state = State()
        self._carrying: frozenset[Network] = frozenset()
        self._callbacks: list[Callable[[], None]] = []
        self._repairs: Counter[str] = Counter()
        self._meddling = Meddling()
        self._shown: asyncio.Future[Mapping[str, str]] | None = None
        store.on_change(self.wake)
        links.on_change(self.wake)

    # -- what others ask ------------------------------------------------------------------------------------------

    @property
    def carrying(self) -> frozenset[Network]:
        """The CIDRs whose kernel state is installed; none while nobody answers for it."""
        return self._carrying

    def on_carrying(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever `carrying` has changed."""
        self._callbacks.append(callback)

    def layer(self, network: Network) -> Layer:
        """Return how far the kernel is with one CIDR, as last heard; or why it is kept out."""
        with contextlib.suppress(StoreUnavailable):
            if (bar := self._store.barred().get(network)) is not None:
                return Layer(LayerState.ERROR, bar.text, bar.code)
        return self._state.layers.get(network, Layer(LayerState.PENDING, "not looked at yet", "pending"))

    def problem(self) -> str | None:
        """Return why the last pass failed, or why nobody says; None where all is well."""
        if self._away is None:
            return self._state.problem
        return f"nexthop-forward does not answer ({self._away}): what is installed stays so, and nobody watches it"

    def ready(self) -> bool:
        """Return whether a pass has come to its end since nexthop-forward's start, whatever it found."""
        return self._away is None and self._state.ready

    async def devices(self) -> Mapping[str, Device]:
        """Return the network devices as they are now, which everybody may see. Raises `KernelError`."""
        return await self._devices()

    def firewall(self) -> FirewallStatus:
        """Return the back-end in use, as last heard."""
        return self._state.firewall

    def repairs(self) -> Mapping[str, int]:
        """Return how often something of ours that had vanished was put back, by kind; gtun's repairs among them."""
        return dict(self._repairs + Counter(self._state.repairs))

    def meddling(self) -> tuple[Repeated, ...]:
        """Return what somebody keeps changing."""
        return self._meddling.often(asyncio.get_running_loop().time())

    async def rules(self) -> Mapping[str, str]:
        """Return the text of every firewall rule of this machine, as only nexthop-forward may see them."""
        if self._shown is None or self._shown.done():
            self._shown = asyncio.get_running_loop().create_future()
            self._tell(Show())
        try:
            async with asyncio.timeout(_SHOW if self._peer is not None else 0):
                return await asyncio.shield(self._shown)
        except TimeoutError:
            self._shown = None
            return {"firewall": f"nexthop-forward does not answer: {self._away or 'it is busy'}\n"}

    def repaired(self, kind: str, what: str, count: int = 1) -> None:
        """Count and tell a repair of gtun's."""
        self._repairs[kind] += count
        self._note(Repaired(kind, what, count))

    def wake(self) -> None:
        """Have nexthop-forward look again soon."""
        self._tell(Wake())

    # -- the conversation -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, listen, and connect again, until cancelled."""
        while True:
            try:
                await self._converse()
            except BadMessage as error:
                self._lost(f"it says what nobody understands: {error}")
            except OSError as error:
                self._lost(f"{self._path}: {error.strerror or error}")
            finally:
                self._peer = None
            await asyncio.sleep(self._retry)

    async def _converse(self) -> None:
        with contextlib.closing(Line(*await asyncio.open_unix_connection(self._path, limit=LINE_LIMIT))) as line:
            if await line.greet():
                self._peer = line
                while (message := await line.hear()) is not None:
                    self._hear(message)
        self._lost("it ended")

    def _lost(self, why: str) -> None:
        if self._away is None:
            log.warning("nexthop-forward is gone: %s", why)
        self._away = why
        self._carry(frozenset())

    def _hear(self, message: Message) -> None:
        match message:
            case State():
                if self._away is not None:
                    log.info("nexthop-forward answers")
                self._away, self._state = None, message
                self._carry(message.carrying)
            case Removing(number, carrying, networks):
                self._carry(carrying)
                self._tell(Stays(number, self._asked_for(networks)))
            case Gone(revisions):
                self._drop(revisions)
            case Repaired():
                self._note(message)
            case Passed(seconds):
                self._timed(seconds)
            case Shown(rules):
                if self._shown is not None and not self._shown.done():
                    self._shown.set_result(rules)
            case _:
                raise BadMessage(f"{type(message).__name__} is ours to say")

    def _carry(self, carrying: frozenset[Network]) -> None:
        if carrying != self._carrying:
            self._carrying = carrying
            for callback in self._callbacks:
                callback()

    def _asked_for(self, networks: frozenset[Network]) -> frozenset[Network]:
        """Return those that must stay: asked for again since the pass began, or nobody can say."""
        try:
            now, barred = self._store.all(), self._store.barred()
        except StoreUnavailable:
            return networks
        asked = {intent.network for intent in now if intent.phase is not Phase.WITHDRAWN}
        return networks & (asked - barred.keys())

    def _drop(self, revisions: Mapping[Network, int]) -> None:
        try:
            for network, revision in revisions.items():
                self._store.drop(network, revision)
        except StoreUnavailable as error:
            log.warning("what is gone cannot be forgotten yet: %s", error)
            asyncio.get_running_loop().call_later(_DISK, self.wake)

    def _note(self, repair: Repaired) -> None:
        self._meddling.note(repair.kind, repair.what, asyncio.get_running_loop().time())
        with contextlib.suppress(StoreUnavailable):
            self._store.record("forward", f"repaired {repair.kind}", detail=repair.what)

    def _tell(self, message: Message) -> None:
        if self._peer is not None:
            self._peer.say(message)
