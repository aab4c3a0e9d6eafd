"""uvicorn on sockets that we bound, without its signal handlers: the daemon has one, and two would fight.

One application behind two listeners: the Unix socket, and TLS where that is configured. Each connection is `Guarded`.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from api.protocol import Guarded

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp

_GRACE_SECONDS = 2  # for requests under way at the end
_KEEP_ALIVE_SECONDS = 5
_HEAD_BYTES = 16 * 1024
_TLS_SECONDS = 5.0  # for a handshake, and for a farewell


@dataclass(frozen=True, slots=True)
class Tls:
    """A listening socket that speaks TLS."""

    listener: socket.socket
    context: ssl.SSLContext


class _Server(uvicorn.Server):
    def __init__(self, app: ASGIApp, ready: Callable[[], None], context: ssl.SSLContext | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Guarded,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=_HEAD_BYTES,
                timeout_graceful_shutdown=_GRACE_SECONDS,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            )
        )
        self._ready = ready
        self._context = context

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, with a limit on handshakes, which uvicorn cannot be told; then say so."""
        loop = asyncio.get_running_loop()
        seconds = None if self._context is None else _TLS_SECONDS
        self.servers = [
            await loop.create_server(
                self._connection,
                sock=each,
                ssl=self._context,
                ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=seconds,
            )
            for each in sockets or []
        ]
        self.started = True
        self._ready()

    def _connection(self) -> Guarded:
        return Guarded(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield


async def serve(
    app: ASGIApp, listener: socket.socket, stop: asyncio.Event, ready: Callable[[], None], tls: Tls | None = None
) -> None:
    """Answer on `listener`, and on `tls`, until `stop`, then end what is under way.

    `ready` is called once requests are taken.
    """
    waiting = 1 if tls is None else 2

    def one_ready() -> None:
        nonlocal waiting
        waiting -= 1
        if not waiting:
            ready()

    servers = [(_Server(app, one_ready), listener)]
    if tls is not None:
        servers.append((_Server(app, one_ready, tls.context), tls.listener))
    async with asyncio.TaskGroup() as tasks:
        for server, bound in servers:
            tasks.create_task(server.serve(sockets=[bound]))
        await stop.wait()
        for server, _ in servers:
            server.should_exit = True
