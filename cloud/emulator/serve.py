"""The two listeners: the API and the metadata service, one process, one signal handler.

Rule: thin. Parameters go to `actions`, `signature` and `identity`, what they say goes back; every change of the world
reaches the router before the call that made it, or a later one that shows it, is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import time
import uuid
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from cloud.emulator.actions import WRITES, perform
from cloud.emulator.identity import Identities
from cloud.emulator.signature import Gate
from cloud.emulator.world import ApiError, Hop, World
from cloud.emulator.worldfile import Endpoint, WorldFile

log = logging.getLogger(__name__)

_HOST: Final = "vpc.aliyuncs.com"
_PRIVATE: Final = frozenset({"Signature", "SecurityToken", "AccessKeyId", "SignatureNonce"})


class DataPlane(Protocol):
    """What follows the route tables."""

    async def program(self, hops: frozenset[Hop]) -> None:
        """Make packets go exactly this way."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the API, as `GET /_emulator/calls` shows it; without key, token and signature."""

    n: int
    at: float
    action: str
    write: bool
    status: int
    code: str
    request_id: str
    params: dict[str, str]


class Emulator:
    """A living world behind HTTP."""

    def __init__(self, file: WorldFile, router: DataPlane | None = None) -> None:
        self.world = World(file)
        self.calls: list[Call] = []
        self._identities = Identities(file, secrets.token_bytes(32), time.time())
        self._gate = Gate(lambda key_id: self._identities.secret_of(key_id, time.time()))
        self._router = router
        self._programmed: frozenset[Hop] = frozenset()
        self._programming = asyncio.Lock()
        self._changed = asyncio.Event()

    def api(self) -> Starlette:
        """Return the API's application."""
        return Starlette(
            routes=[
                Route("/", self._call, methods=["GET", "POST"]),
                Route("/_emulator/calls", self._show_calls, methods=["GET", "DELETE"]),
            ]
        )

    def metadata(self) -> Starlette:
        """Return the metadata service's application."""
        return Starlette(routes=[Route("/{path:path}", self._metadata, methods=["GET", "PUT"])])

    async def follow(self) -> None:
        """Program the router whenever an entry settles; runs until it is cancelled."""
        while True:
            await self._program()
            self._changed.clear()
            delay = self.world.next_change(time.time())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), delay)

    async def _call(self, request: Request) -> Response:
        params = dict(parse_qsl(request.url.query, keep_blank_values=True))
        if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            params |= parse_qsl((await request.body()).decode(errors="replace"), keep_blank_values=True)
        request_id = str(uuid.uuid4()).upper()
        status, code = 200, ""
        try:
            now = time.time()
            self._gate.admit(request.method, params, now)
            body = perform(self.world, params, now)
            await self._program()
            self._changed.set()
        except ApiError as error:
            status, code = error.status, error.code
            body = {
                "HostId": _HOST,
                "Code": error.code,
                "Message": error.message,
                "Recommend": f"https://api.aliyun.com/troubleshoot?q={error.code}&product=Vpc",
            }
        action = params.get("Action", "")
        self.calls.append(
            Call(
                n=len(self.calls) + 1,
                at=time.time(),
                action=action,
                write=action in WRITES,
                status=status,
                code=code,
                request_id=request_id,
                params={name: value for name, value in params.items() if name not in _PRIVATE},
            )
        )
        return JSONResponse({"RequestId": request_id} | body, status_code=status)

    async def _program(self) -> None:
        if self._router is None:
            return
        async with self._programming:
            hops = self.world.hops(time.time())
            if hops != self._programmed:
                await self._router.program(hops)
                self._programmed = hops

    async def _show_calls(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.calls.clear()
            return Response(status_code=204)
        fields = Call.__slots__
        shown: list[dict[str, Any]] = [{name: getattr(call, name) for name in fields} for call in self.calls]
        return JSONResponse({"calls": shown})

    async def _metadata(self, request: Request) -> Response:
        asker = request.client.host if request.client else ""
        headers = {name.lower(): value for name, value in request.headers.items()}
        answer = self._identities.answer(asker, request.method, request.url.path, headers, time.time())
        return PlainTextResponse(answer.text, status_code=answer.status)


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
                for listener in listeners:
                    listener.should_exit = True
                following.cancel()


async def serve(file: WorldFile, router: DataPlane | None, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    async with listening(Emulator(file, router)) as (api, metadata):
        log.info("ready api=%s metadata=%s", api, metadata)
        await stop.wait()
    log.info("stopped")
