"""The API and the metadata service as two ASGI applications around one living world.

Rule: thin. What a call may do is decided by `signature`, `permissions`, `faults` and `actions`, in that order; every
change of the world reaches the router before the call that made it, or a later one that shows it, is answered. What is
under ``/_emulator/`` is not the cloud's and is not signed: it is for the tests that drive it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
import uuid
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from cloud.emulator import acs3, faults
from cloud.emulator.actions import ECS_VERSION, WRITES, perform
from cloud.emulator.faults import Faults, Kind
from cloud.emulator.identity import Identities
from cloud.emulator.params import Body
from cloud.emulator.permissions import Forbidden, Permissions
from cloud.emulator.signature import Gate
from cloud.emulator.world import ApiError, Hop, World
from cloud.emulator.worldfile import Fault, WorldFile, read_faults

_PRIVATE: Final = frozenset({"Signature", "SecurityToken", "AccessKeyId", "SignatureNonce"})


class DataPlane(Protocol):
    """What follows the route tables."""

    async def program(self, hops: frozenset[Hop]) -> None:
        """Make packets go exactly this way."""
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the API, as `GET /_emulator/calls` shows it; without key, token and signature.

    `done`: it was carried out, whether or not an answer came.
    """

    n: int
    at: float
    action: str
    write: bool
    status: int
    code: str
    request_id: str
    params: dict[str, str]
    done: bool = True


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the client gets: `status` 0 is no answer at all."""

    status: int
    code: str
    body: Body
    done: bool = False


class Emulator:
    """A living world behind HTTP."""

    def __init__(self, file: WorldFile, router: DataPlane | None = None) -> None:
        self.world = World(file)
        self.calls: list[Call] = []
        self.permissions = Permissions(file)
        self.faults = Faults(random.random)
        self.faults.add(file.fault)
        self._identities = Identities(file, secrets.token_bytes(32), time.time())
        self._gate = Gate(lambda key_id: self._identities.secret_of(key_id, time.time()))
        self._router = router
        self._programmed: frozenset[Hop] = frozenset()
        self._programming = asyncio.Lock()
        self._changed = asyncio.Event()
        self.ending = asyncio.Event()  # whoever still waits for an answer is let go

    def api(self) -> Starlette:
        """Return the API's application."""
        return Starlette(
            routes=[
                Route("/", self._call, methods=["GET", "POST"]),
                Route("/_emulator/calls", self._show_calls, methods=["GET", "DELETE"]),
                Route("/_emulator/faults", self._faults, methods=["GET", "POST", "DELETE"]),
                Route("/_emulator/permissions", self._permissions, methods=["GET", "PUT"]),
                Route("/_emulator/console", self._console, methods=["POST"]),
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

    # ---- the cloud's own part -------------------------------------------------------------------------------------

    async def _call(self, request: Request) -> Response:
        raw, params = await _read(request)
        request_id = str(uuid.uuid4()).upper()
        answer = await self._answer(raw, params)
        action = params.get("Action", "")
        self.calls.append(
            Call(
                n=len(self.calls) + 1,
                at=time.time(),
                action=action,
                write=action in WRITES and params.get("DryRun", "").lower() != "true",
                status=answer.status,
                code=answer.code,
                request_id=request_id,
                params={name: value for name, value in params.items() if name not in _PRIVATE},
                done=answer.done,
            )
        )
        if answer.status == 0:
            await self._until_gone(request)
        return JSONResponse({"RequestId": request_id} | answer.body, status_code=answer.status or 504)

    async def _until_gone(self, request: Request) -> None:
        """Say nothing until the client, or the emulator, has had enough."""
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(_disconnected(request)), group.create_task(self.ending.wait())]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for each in waiting:
                each.cancel()

    async def _answer(self, raw: acs3.Raw, params: dict[str, str]) -> _Answer:
        try:
            self._admit(raw, params)
        except ApiError as error:
            return _refusal(error, params)
        met = self.faults.meet(params.get("Action", ""))
        for kind, fault in met:
            if kind is Kind.SLOW:
                await asyncio.sleep(fault.seconds)
        for kind, fault in met:
            if kind is Kind.ERROR:
                return _refusal(ApiError(fault.code, faults.message(fault), status=fault.status), params)
            if kind is Kind.LOST:
                return _Answer(0, "lost", {})
        return await self._perform(params, dict(met))

    def _admit(self, raw: acs3.Raw, params: dict[str, str]) -> None:
        now = time.time()
        if acs3.is_meant(raw.headers):
            key_id = self._gate.admit_acs3(raw, now)
        else:
            self._gate.admit(raw.method, params, now)
            key_id = params["AccessKeyId"]
        self.permissions.check(self._identities.principal(key_id), params.get("Action", ""))

    async def _perform(self, params: dict[str, str], met: dict[Kind, Fault]) -> _Answer:
        now = time.time()
        world = self.world
        if Kind.STALE in met and params.get("Action", "") not in WRITES:
            now -= met[Kind.STALE].seconds
            world = self.world.as_of(now)
        try:
            body = perform(world, params, now)
        except ApiError as error:
            return _Answer(0, error.code, {}) if Kind.LATE in met else _refusal(error, params)
        await self._program()
        self._changed.set()
        if Kind.LATE in met:
            return _Answer(0, "late", {}, done=True)
        return _Answer(200, "", faults.without_pages(body) if Kind.LOST_PAGE in met else body, done=True)

    async def _program(self) -> None:
        if self._router is None:
            return
        async with self._programming:
            hops = self.world.hops(time.time())
            if hops != self._programmed:
                await self._router.program(hops)
                self._programmed = hops

    async def _metadata(self, request: Request) -> Response:
        asker = request.client.host if request.client else ""
        headers = {name.lower(): value for name, value in request.headers.items()}
        answer = self._identities.answer(asker, request.method, request.url.path, headers, time.time())
        return PlainTextResponse(answer.text, status_code=answer.status)

    # ---- for tests ------------------------------------------------------------------------------------------------

    async def _show_calls(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.calls.clear()
            return Response(status_code=204)
        fields = Call.__slots__
        shown: list[dict[str, Any]] = [{name: getattr(call, name) for name in fields} for call in self.calls]
        return JSONResponse({"calls": shown})

    async def _faults(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.faults.clear()
        elif request.method == "POST":
            try:
                self.faults.add(read_faults(await request.json()))
            except ValueError as error:  # BadWorld, BadFault, or no JSON
                return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"faults": self.faults.shown()})

    async def _permissions(self, request: Request) -> Response:
        if request.method == "PUT":
            try:
                for principal, actions in dict(await request.json()).items():
                    self.permissions.allow(principal, list(actions))
            except (ValueError, TypeError) as error:
                return JSONResponse({"error": str(error)}, 400)
            except KeyError as error:
                return JSONResponse({"error": f"there is no {error}"}, 404)
        return JSONResponse({"permissions": self.permissions.shown()})

    async def _console(self, request: Request) -> Response:
        """Do what a person does in the cloud's console: any action, neither signed, nor logged, nor disturbed."""
        try:
            asked = {str(name): str(value) for name, value in dict(await request.json()).items()}
        except (ValueError, TypeError):
            return JSONResponse({"error": "send the action's parameters as a JSON object"}, 400)
        params = {"Version": ECS_VERSION, "RegionId": self.world.file.region} | asked
        try:
            body = perform(self.world, params, time.time())
        except ApiError as error:
            return JSONResponse({"Code": error.code, "Message": error.message}, error.status)
        await self._program()
        self._changed.set()
        return JSONResponse(body)


async def _read(request: Request) -> tuple[acs3.Raw, dict[str, str]]:
    """Return the request as it came, and its parameters, whichever of three places they are in."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    query, body = request.url.query, await request.body()
    params = dict(parse_qsl(query, keep_blank_values=True))
    if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        params |= parse_qsl(body.decode(errors="replace"), keep_blank_values=True)
    if acs3.is_meant(headers):  # else a header that nobody signed would say what is done
        for name in ("Action", "Version"):
            params[name] = headers.get(f"x-acs-{name.lower()}", "")
        params.setdefault("RegionId", headers.get("x-acs-region-id", ""))
    return acs3.Raw(request.method, request.url.path, query, headers, body), params


def _refusal(error: ApiError, params: dict[str, str]) -> _Answer:
    product = "ecs" if params.get("Version") == ECS_VERSION else "vpc"
    body: Body = {
        "HostId": f"{product}.aliyuncs.com",
        "Code": error.code,
        "Message": error.message,
        "Recommend": f"https://api.aliyun.com/troubleshoot?q={error.code}&product={product.capitalize()}",
    }
    if isinstance(error, Forbidden):
        body["AccessDeniedDetail"] = error.detail
    return _Answer(error.status, error.code, body)


async def _disconnected(request: Request) -> bool:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return True
