"""/v1/support-bundle: everything that helps somebody far away, in one archive, without anything that is secret.

Each part is gathered on its own: what cannot be read is said in its place, and the rest is there all the same.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import io
import json
import platform
import re
import sys
import tarfile
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter
from fastapi.responses import Response

from api.caller import PEER, Peer
from api.parts import Parts
from api.problem import Problem, Reason
from api.scrub import Scrubber

if TYPE_CHECKING:
    from fastapi import FastAPI

_COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "kernel/addresses.txt": ("ip", "-d", "address"),
    "kernel/routes.txt": ("ip", "-d", "route", "show", "table", "all"),
    "kernel/routes6.txt": ("ip", "-6", "-d", "route", "show", "table", "all"),
    "kernel/rules.txt": ("ip", "rule"),
    "kernel/sockets.txt": ("ss", "-s"),
    "kernel/sysctls.txt": ("sysctl", "-a", "--pattern", r"^net\.(ipv4\.(ip_forward|conf)|ipv6\.conf|netfilter)"),
}
_SECONDS: Final = 5.0  # for each command
_LONGEST: Final = 2 * 1024 * 1024  # bytes of each part
_SHOWN: Final = ("status", "cidrs", "links", "routes", "history?limit=1000", "traffic", "plan", "doctor")
_LINK_SECRET: Final = re.compile(r'^\s*(?:key|join)\s*=\s*"([^"]+)"', re.MULTILINE)

Ask = Callable[[str], Awaitable[str]]
"""Ask our own API, as the socket of this machine would; returns the body, an error's too."""


def router(parts: Parts, app: FastAPI) -> APIRouter:
    """Return the endpoint. `app` is asked for what the API shows, so that the bundle shows the same."""
    routes = APIRouter(tags=["upkeep"])
    busy = asyncio.Lock()
    described: dict[int | str, dict[str, Any]] = {
        200: {"content": {"application/gzip": {"schema": {"type": "string", "format": "binary"}}}}
    }

    @routes.get("/v1/support-bundle", response_class=Response, responses=described)
    async def support_bundle() -> Response:
        """Pack what helps to find a fault: state, history, log, kernel; no key, token or signature. Takes seconds."""
        if busy.locked():
            reason = Reason("bundle-under-way", "a bundle is being made", "wait for it, then try again")
            raise Problem(429, "bundle-under-way", "One at a time", reasons=[reason], headers={"Retry-After": "5"})
        async with busy:
            found = await _gather(parts, lambda target: _asked(app, target))
            packed = await asyncio.to_thread(pack, found, secrets(parts), time.time())
        headers = {"Content-Disposition": f'attachment; filename="nexthop-support-{int(time.time())}.tar.gz"'}
        return Response(packed, media_type="application/gzip", headers=headers)

    return routes


async def _gather(parts: Parts, ask: Ask) -> dict[str, str]:
    found = {"versions.txt": _versions(parts), "config.toml": _config(parts), "log.txt": "\n".join(parts.log)}
    for target in _SHOWN:
        found[f"{target.partition('?')[0]}.json"] = await ask(f"/v1/{target}")
    for name, command in _COMMANDS.items():
        found[name] = await _run(command)
    for name, text in (await parts.kernel.rules()).items():
        found[f"kernel/{name}.txt"] = text
    return found


def pack(found: Mapping[str, str], known: tuple[str, ...], now: float) -> bytes:
    """Scrub every part and return the archive."""
    scrub = Scrubber(known)
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=now) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, text in found.items():
            content = scrub(text[-_LONGEST:]).encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"nexthop-support/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(now), 0o600
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def secrets(parts: Parts) -> tuple[str, ...]:
    """Return what lies on this machine and must not leave it, in the encodings that a whole secret has."""
    state = parts.store.path.parent
    texts = list[str]()
    for path in (*(state / "links").glob("*.toml"), *(state / "api").glob("*.pem"), *parts.about.secrets):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = path.read_text(encoding="utf-8")
            texts += _LINK_SECRET.findall(text) if path.suffix == ".toml" else _lines(text)
    return tuple(each for text in texts for each in _encodings(text))


def _lines(text: str) -> list[str]:
    """Return the parts of a key file or a credentials file that are more than names."""
    return [word for line in text.splitlines() for word in re.split(r"[\s=:\"',{}]+", line) if len(word) >= 12]


def _encodings(secret: str) -> tuple[str, ...]:
    raw = [secret.encode()]
    with contextlib.suppress(ValueError):
        raw.append(base64.b64decode(secret, validate=True))
    return (
        secret,
        *(form for each in raw for form in (each.hex(), each.hex().upper(), base64.b64encode(each).decode())),
    )


def _versions(parts: Parts) -> str:
    names = ("aliyun-python-sdk-core", "cryptography", "fastapi", "pyroute2", "python-iptables", "starlette", "uvicorn")
    lines = [f"nexthop {parts.about.version}", f"python {sys.version}", f"kernel {platform.platform()}"]
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            lines.append(f"{name} {metadata.version(name)}")
    return "\n".join(lines) + "\n"


def _config(parts: Parts) -> str:
    if parts.about.config is None:
        return "no configuration file is known\n"
    try:
        return parts.about.config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return f"{parts.about.config}: {error}\n"


async def _run(command: tuple[str, ...]) -> str:
    """Return what a program that only looks says, or why it says nothing."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        return f"{command[0]}: {error.strerror}\n"
    try:
        async with asyncio.timeout(_SECONDS):
            said, _ = await process.communicate()
    except TimeoutError:
        return f"{command[0]}: no end after {_SECONDS:g} s\n"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said.decode("utf-8", "replace")


async def _asked(app: FastAPI, target: str) -> str:
    """Ask a router of ours as a request would; what fails is told in the answer, as ever."""
    path, _, query = target.partition("?")
    body = bytearray()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [],
        "state": {PEER: Peer(local=True)},
    }

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Mapping[str, object]) -> None:
        part = message.get("body", b"")
        if isinstance(part, bytes):
            body.extend(part)

    await app(scope, receive, send)
    return json.dumps(json.loads(bytes(body)), indent=1)
