"""A client's way in: connect, check who answers before a word is said, say hello; and what a failure of that means."""

from __future__ import annotations

import asyncio
import base64
import functools
import os
import ssl
from collections.abc import AsyncGenerator
from typing import Final

from . import config, frame, identity, keys
from .messages import CAPABILITIES, VERSIONS, Event, Goodbye, Hello, Welcome
from .session import Conversation
from .standing import LinkDown
from .tls import Line

PATIENCE: Final = 10.0
"""Seconds for a server to answer, from the first SYN to the first echo."""

_CONNECT_PATIENCE: Final = 4.0
_tls: Final = functools.cache(identity.client_context)  # it is large, and says the same for every attempt

FAILURES: Final = (LinkDown, TimeoutError, identity.PinMismatch, frame.RemoteProtocolError, OSError)
"""How an attempt can end."""


def meaning(link: config.LinkConfig, error: Exception) -> LinkDown:
    """Return what one of `FAILURES` means to people."""
    match error:
        case LinkDown():
            return error
        case TimeoutError():
            return LinkDown("timeout", f"{link.server} does not answer within {PATIENCE:.0f} seconds")
        case identity.PinMismatch():
            return LinkDown("pin-mismatch", f"{error}: somebody is in between, or gtund was set up anew")
        case frame.RemoteProtocolError():
            return LinkDown("protocol", f"{link.server} does not speak our protocol: {error}")
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return LinkDown("unreachable", f"{link.server} hung up before the handshake was done")
        case ssl.SSLError():  # whose number is none of the system's
            return LinkDown("protocol", f"{link.server} does not speak our protocol: {error.reason or error}")
    why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return LinkDown("unreachable", f"{link.server} cannot be reached: {why}")


async def connect(link: config.LinkConfig) -> Line:
    """Open a control connection to the server that was pinned; nothing is said before that is certain."""
    host, port = config.host_and_port(link.server, "server")
    async with asyncio.timeout(_CONNECT_PATIENCE):  # a SYN that is lost comes again ever more rarely
        line = await Line.connect(host, port, _tls(), _CONNECT_PATIENCE)
    try:
        identity.check_pin(line.certificate, link.pin)
    except BaseException:
        line.hang_up()
        raise
    return line


async def handshake(
    link: config.LinkConfig,
    conversation: Conversation,
    events: AsyncGenerator[Event, None],
    line: Line,
) -> tuple[Welcome, keys.Session]:
    """Say hello; return what the server gives, and the session's secret. Raise one of `FAILURES`."""
    ours = os.urandom(keys.RANDOM)
    key, join = base64.b64decode(link.key), base64.b64decode(link.join)
    hello = Hello(VERSIONS, link.client, key, join, ours, link.connections, link.channel, capabilities=CAPABILITIES)
    conversation.hello(hello)
    line.write(conversation.to_send())
    match await anext(events):
        case Welcome() as welcome:
            return welcome, keys.Session.agree(welcome.session_id, ours, welcome.random)
        case Goodbye(code, reason):
            raise LinkDown(code, f"{link.server} refuses us: {reason}")
        case other:
            raise frame.RemoteProtocolError(f"{type(other).__name__} is no answer")
