"""The two listeners: the API and the metadata service, one process, one signal handler."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Generator

import uvicorn
from starlette.applications import Starlette

from cloud.emulator.api import Call, DataPlane, Emulator
from cloud.emulator.worldfile import Endpoint, WorldFile

__all__ = ["Call", "DataPlane", "Emulator", "Listener", "bind", "listening", "serve"]

log = logging.getLogger(__name__)


class Listener(uvicorn.Server):
    """A server that leaves signals to us: two of uvicorn's own would fight over them."""

    def __init__(self, app: Starlette, bound: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                proxy_headers=False,  # metadata believes the address of the socket, not a header
                http="h11",
                ws="none",
                timeout_graceful_shutdown=1,
            )
        )
        self.bound = bound
        self.up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell who waits for `up`."""
        await super().startup(sockets=sockets)
        self.up.set()

    @property
    def address(self) -> str:
        """ADDRESS:PORT as it really is."""
        host, port = self.bound.getsockname()
        return f"{host}:{port}"


def bind(endpoint: Endpoint) -> socket.socket:
    """Take the address, or raise OSError with a text that names it."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # An answer is two writes, and the second would wait 40 ms for a delayed ACK. What is accepted inherits it; asyncio
    # sets it only on sockets that were made with IPPROTO_TCP.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        bound.bind((endpoint.host, endpoint.port))
    except OSError as error:
        bound.close()
        raise OSError(error.errno, f"cannot listen on {endpoint.host}:{endpoint.port}: {error.strerror}") from None
    return bound


@contextlib.asynccontextmanager
async def listening(emulator: Emulator) -> AsyncIterator[tuple[str, str]]:
    """Answer inside this context; gives ADDRESS:PORT of the API and of the metadata service."""
    file = emulator.world.file
    with bind(file.listen.api) as api, bind(file.listen.metadata) as metadata:
        listeners = Listener(emulator.api(), api), Listener(emulator.metadata(), metadata)
        async with asyncio.TaskGroup() as group:
            following = group.create_task(emulator.follow())
            for listener in listeners:
                group.create_task(listener.serve(sockets=[listener.bound]))
            for listener in listeners:
                await listener.up.wait()
            try:
                yield listeners[0].address, listeners[1].address
            finally:
                emulator.ending.set()
                for listener in listeners:
                    listener.should_exit = True
                following.cancel()


async def serve(file: WorldFile, router: DataPlane | None, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    async with listening(Emulator(file, router)) as (api, metadata):
        log.info("ready api=%s metadata=%s", api, metadata)
        await stop.wait()
    log.info("stopped")
