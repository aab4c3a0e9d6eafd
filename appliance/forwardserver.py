"""nexthop-forward's end of the conversation: one Unix socket, one nexthopd at a time.

Who may speak is asked of the kernel (SO_PEERCRED), not of the peer: root, ourselves, and whoever owns the state, since
what is in there is what we carry out. A newer nexthopd takes the place of an older one, which may not have been
noticed to be dead yet. One that does not read is hung up on: it gets everything anew when it comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

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

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.model import Network

log = logging.getLogger(__name__)

_PATIENCE: Final = 0.5  # seconds for an answer, in which nothing else is repaired
_UNREAD: Final = 32 << 20  # bytes
_UNTOLD: Final = 1000  # repairs to tell a nexthopd that is away
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred, unix(7): pid, uid, gid


class Speaker(Protocol):
    """What this needs of `appliance.forward.Forward`."""

    def state(self) -> State:
        """Return what there is to tell."""
        ...

    def wake(self) -> None:
        """Look again: intents or links have changed."""
        ...

    async def rules(self) -> Mapping[str, str]:
        """Return the text of every firewall rule of this machine."""
        ...


class ForwardServer:
    """Run `run()` in a task."""

    def __init__(self, path: Path, *, patience: float = _PATIENCE) -> None:
        self._path = path
        self._patience = patience
        self._peer: Line | None = None
        self._forward: Speaker | None = None
        self._told: State | None = None
        self._untold: deque[Repaired] = deque(maxlen=_UNTOLD)
        self._number = 0
        self._show = asyncio.Event()
        self._answer: asyncio.Future[frozenset[Network] | None] | None = None
        self._trusted: Callable[[], frozenset[int]] = lambda: frozenset({0, os.geteuid()})

    def trust_owner_of(self, place: Path) -> None:
        """Let the owner of `place` speak, too, whoever that is when somebody comes."""

        def trusted() -> frozenset[int]:
            with contextlib.suppress(OSError):
                return frozenset({0, os.geteuid(), place.stat().st_uid})
            return frozenset({0, os.geteuid()})

        self._trusted = trusted

    # -- what `forward` says --------------------------------------------------------------------------------------

    def listens(self) -> bool:
        """Return whether a nexthopd is there."""
        return self._peer is not None

    async def removing(self, carrying: frozenset[Network], networks: frozenset[Network]) -> frozenset[Network] | None:
        """Announce; return what must stay. None where nobody answers: then all of it must."""
        if self._peer is None:
            return None
        self._number += 1
        self._answer = asyncio.get_running_loop().create_future()
        self._tell(Removing(self._number, carrying, networks))
        try:
            async with asyncio.timeout(self._patience):
                return await self._answer
        except TimeoutError:
            log.warning("nexthopd does not answer: nothing is removed before it does")
            return None
        finally:
            self._answer = None

    def gone(self, revisions: Mapping[Network, int]) -> None:
        """Say that the kernel holds nothing of these any more, whose records were read at these revisions."""
        self._tell(Gone(revisions))

    def repaired(self, kind: str, what: str, count: int = 1) -> None:
        """Tell a repair, or keep it for when somebody listens."""
        if self._peer is None:
            self._untold.append(Repaired(kind, what, count))
        else:
            self._tell(Repaired(kind, what, count))

    def passed(self, seconds: float) -> None:
        """Tell how long a pass took."""
        self._tell(Passed(seconds))

    def publish(self) -> None:
        """Tell what there is to tell, if it is something new."""
        if self._peer is not None and self._forward is not None and (state := self._forward.state()) != self._told:
            self._told = state
            self._tell(state)

    # -- the socket -----------------------------------------------------------------------------------------------

    async def run(self, forward: Speaker) -> None:
        """Speak for `forward` until cancelled."""
        self._forward = forward
        self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with listener:
            umask = os.umask(0o117)
            try:
                listener.bind(str(fresh))
            finally:
                os.umask(umask)
            server = await asyncio.start_unix_server(self._converse, sock=listener, limit=LINE_LIMIT)
            fresh.replace(self._path)
            try:
                await self._shows(forward)  # until cancelled
            finally:
                # Not serve_forever(): from Python 3.12 on it ends only when the last peer has hung up.
                server.close()
                self._forward = None
                self._hang_up()

    async def _shows(self, forward: Speaker) -> None:
        """Answer who wants to see the rules, beside all else: it takes a moment."""
        while True:
            await self._show.wait()
            self._show.clear()
            self._tell(Shown(await forward.rules()))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(Line(reader, writer)) as line:
            if not self._admits(writer):
                return
            try:
                if not await line.greet() or self._forward is None:  # who came as `run()` ended finds nobody
                    return
                self._hang_up()
                self._begin(line)
                while (message := await line.hear()) is not None:
                    self._hear(message)
            except BadMessage as error:
                log.warning("nexthopd says what nobody understands: %s", error)
            except ConnectionError:
                pass
            finally:
                if self._peer is line:
                    self._hang_up()

    def _admits(self, writer: asyncio.StreamWriter) -> bool:
        sock: socket.socket = writer.get_extra_info("socket")
        packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _pid, uid, _gid = _CREDENTIALS.unpack(packed)
        if uid not in self._trusted():
            log.warning("user %s may not speak with nexthop-forward", uid)
            return False
        return True

    def _begin(self, line: Line) -> None:
        self._peer, self._told = line, None
        log.info("nexthopd is there")
        self.publish()
        while self._untold:
            self._tell(self._untold.popleft())
        self._wake()

    def _wake(self) -> None:
        if self._forward is not None:
            self._forward.wake()

    def _hear(self, message: Message) -> None:
        match message:
            case Wake():
                self._wake()
            case Show():
                self._show.set()
            case Stays(number, networks):
                if number == self._number and self._answer is not None and not self._answer.done():
                    self._answer.set_result(networks)
            case _:
                raise BadMessage(f"{type(message).__name__} is ours to say")

    def _tell(self, message: Message) -> None:
        if self._peer is None:
            return
        self._peer.say(message)
        if self._peer.unread > _UNREAD:
            log.warning("nexthopd does not read: it is hung up on")
            self._hang_up()

    def _hang_up(self) -> None:
        if self._peer is not None:
            self._peer.abort()
            log.info("nexthopd is gone: what is asked for is carried on, and nothing is removed")
        self._peer, self._told = None, None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)
