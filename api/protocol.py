"""One connection: uvicorn's HTTP/1.1, and what that leaves out.

Says where a connection comes from. A request has so many seconds to arrive, head and body together, and a client so
many to take what it was sent, else the connection ends: nobody holds one by being slow. What is no HTTP gets a problem
document, too.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.caller import PEER, Peer
from api.problem import MEDIA_TYPE, Problem, Reason, body

log = logging.getLogger(__name__)

MOST: Final = 256  # connections to one listener
_ARRIVES_SECONDS: Final = 15.0
_TAKES_SECONDS: Final = 30.0
_LINGERS_SECONDS: Final = 0.5  # an answer is lost where the connection is closed with something unread
_UCRED: Final = struct.Struct("3i")  # unix(7): pid, uid, gid


class Guarded(H11Protocol):
    """A connection that ends when its client is slow."""

    arrives = _ARRIVES_SECONDS
    takes = _TAKES_SECONDS

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._arriving: asyncio.TimerHandle | None = None
        self._taking: asyncio.TimerHandle | None = None
        self._deaf = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Note whose it is; refuse it where there are too many."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, PEER: _peer(transport)}
        if len(self.connections) > MOST:
            transport.abort()
            return
        self._arriving = self.loop.call_later(self.arrives, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave no timer behind."""
        _stop(self._arriving)
        _stop(self._taking)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take data; the time that a request has begins with its first byte."""
        if self._deaf:
            return
        if self._arriving is None:
            self._arriving = self.loop.call_later(self.arrives, self._too_slow)
        super().data_received(data)
        unread = self.conn.trailing_data[0]
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY) or (self.conn.their_state is h11.IDLE and not unread):
            _stop(self._arriving)
            self._arriving = None

    def pause_writing(self) -> None:
        """Wait for the client to take what it was sent, but not for ever."""
        super().pause_writing()
        if self._taking is None:
            self._taking = self.loop.call_later(self.takes, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        _stop(self._taking)
        self._taking = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer what is no HTTP."""
        reason = Reason("bad-request", "this is no HTTP/1.1 request, or its head is too long", "mend the client")
        self._last_words(Problem(400, "bad-request", "The request cannot be read", reasons=[reason]))

    def _too_slow(self) -> None:
        self._arriving = None
        if self.transport.is_closing():
            return
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            text = f"the request did not arrive within {self.arrives:g} s"
            reason = Reason("request-timeout", text, "send it at once, or in smaller parts")
            self._last_words(Problem(408, "request-timeout", "The request took too long", reasons=[reason]))
        else:
            self.transport.abort()

    def _last_words(self, problem: Problem) -> None:
        """Send a problem and close; what cannot be said is left out."""
        status, content = problem.document.status, body(problem)
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(content)).encode()),
            (b"connection", b"close"),
        ]
        try:
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=content),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            log.debug("a connection ends without a word")
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._deaf = True
        self.loop.call_later(_LINGERS_SECONDS, self.transport.close)


def _stop(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _peer(transport: asyncio.Transport) -> Peer:
    found = transport.get_extra_info("socket")
    if found is not None and found.family == socket.AF_UNIX:
        _, uid, _ = _UCRED.unpack(found.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return Peer(local=True, uid=uid)
    name = transport.get_extra_info("peername")
    return Peer(local=False, address=str(name[0]).partition("%")[0] if name else "")
