"""Names to addresses, beside an event loop that must not wait for DNS.

Each name is looked up at most once a minute, in a thread of its own and for at most two seconds. Where DNS has no
answer the last one holds: a tunnel's server does not stop being a tunnel's server because a resolver is down.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

log = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address

_RESOLVE_SECONDS: Final = 2.0
_RESOLVED_FOR: Final = 60.0  # seconds; a server that moves is found again, and a pass rarely waits for DNS


class Resolver:
    """`clock`: monotonic seconds; the event loop's where it is not given."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock
        self._resolved: dict[str, tuple[float, frozenset[Address]]] = {}

    async def resolve(self, host: str) -> frozenset[Address]:
        """Return a host's addresses, none where it has none at the moment. An address is its own answer."""
        try:
            return frozenset({ip_address(host)})
        except ValueError:
            pass
        now = self._clock() if self._clock else asyncio.get_running_loop().time()
        at, known = self._resolved.get(host, (None, frozenset[Address]()))
        if at is not None and now - at < _RESOLVED_FOR:
            return known
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                known = await _lookup(host)
        except (OSError, TimeoutError) as error:
            log.warning("cannot resolve the tunnel server %s: %s", host, str(error) or "no answer")
            return known
        self._resolved[host] = (now, known)
        return known


async def _lookup(host: str) -> frozenset[Address]:
    """Resolve in a thread that nobody waits for: the loop's own pool would hold up the exit while DNS is silent."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[frozenset[Address]] = loop.create_future()

    def settle(result: frozenset[Address] | OSError) -> None:
        if answer.done():
            return
        if isinstance(result, OSError):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    def work() -> None:
        result: frozenset[Address] | OSError
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            result = frozenset(ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found)
        except OSError as error:
            result = error
        except ValueError as error:  # a name that cannot be one, such as an empty label
            result = OSError(str(error))
        try:
            loop.call_soon_threadsafe(settle, result)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    threading.Thread(target=work, name=f"resolve {host}", daemon=True).start()
    return await answer
