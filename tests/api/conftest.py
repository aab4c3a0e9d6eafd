"""The real application behind a real Unix socket, with a real intent store; only kernel and cloud are played."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import http.client
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from api.app import create_app
from api.certificate import Identity, identity, own
from api.client import Daemon
from api.parts import About, Parts
from api.server import Tls, serve
from api.socket import bind
from api.tls import bound
from appliance.intent import IntentStore
from appliance.kernel.state import ALIAS, Device
from appliance.links import Links
from appliance.model import Network
from appliance.status import CloudStatus, FirewallStatus, Layer, LayerState, Repeated
from appliance.tunnel.token import JoinToken, encode
from cloud.provider import Observation, Provider, RouteEntry, Vpc
from tests.appliance.fakes import FakeCloud

ROOT = Path(__file__).parents[2]
SECRET = "c2VjcmV0LXNlY3JldC1zZWNyZXQ"
TOKEN = encode(JoinToken("203.0.113.10", 9443, "cGluLXBpbi1waW4=", "shenzhen", SECRET))
VPC = Vpc(
    vpc_id="vpc-1",
    region="cn-shenzhen",
    cidrs=(ip_network("172.18.0.0/16"),),
    vswitches=(("vsw-hosts", ip_network("172.18.1.0/24")), ("vsw-appliance", ip_network("172.18.2.0/24"))),
    instance_id="i-1",
    private_ip=IPv4Address("172.18.2.10"),
    tables=("vtb-1",),
)
OK = Layer(LayerState.OK, "")
DEVICES = {
    "lo": Device("lo", 1, True, True, (ip_interface("127.0.0.1/8"),)),
    "eth0": Device("eth0", 2, True, True, (ip_interface("172.18.2.10/24"),)),
    "tun-hk": Device("tun-hk", 3, True, True, (ip_interface("100.64.240.50/24"),), f"{ALIAS}hk", "tun"),
}


@dataclass
class PlayedKernel:
    """A kernel that has done what it was asked, unless a test says otherwise."""

    now: Layer = OK
    trouble: str | None = None
    passed: bool = True
    chosen: FirewallStatus = field(default_factory=lambda: FirewallStatus("iptables"))
    mended: Mapping[str, int] = field(default_factory=dict)
    meddled: tuple[Repeated, ...] = ()

    def layer(self, network: Network) -> Layer:
        return self.now

    def problem(self) -> str | None:
        return self.trouble

    def ready(self) -> bool:
        return self.passed

    def firewall(self) -> FirewallStatus:
        return self.chosen

    def repairs(self) -> Mapping[str, int]:
        return self.mended

    def meddling(self) -> tuple[Repeated, ...]:
        return self.meddled

    async def devices(self) -> Mapping[str, Device]:
        return DEVICES

    async def rules(self) -> Mapping[str, str]:
        return {"nftables": "table inet nexthop {}\n"}


@dataclass
class PlayedCloud:
    """A cloud that has done what it was asked, unless a test says otherwise."""

    now: Layer = OK
    around: Vpc | None = VPC
    observation: Observation | None = field(default_factory=lambda: Observation(VPC, ()))
    real: FakeCloud = field(default_factory=FakeCloud)
    found: bool = True
    refusal: Exception | None = None
    state: CloudStatus = field(default_factory=lambda: CloudStatus("aliyun", "vpc-1", "i-1", ("vtb-1",)))

    def layer(self, network: Network) -> Layer:
        return self.now

    def status(self) -> CloudStatus:
        return self.state

    def vpc(self) -> Vpc | None:
        return self.around

    def entries(self) -> tuple[RouteEntry, ...]:
        return tuple(self.real.entries)

    def carrying(self) -> frozenset[Network]:
        return frozenset(entry.destination for entry in self.real.entries)

    def provider(self) -> Provider | None:
        return self.real if self.found else None

    def repairs(self) -> Mapping[str, int]:
        return {"cloud-drift": 0}

    async def adopt(self, network: Network, *, who: str = "operator") -> None:
        if self.refusal is not None:
            raise self.refusal
        await self.real.adopt(network)


@dataclass(frozen=True)
class Answer:
    """What came back over the network."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Appliance:
    """Everything that a test may look at or turn."""

    parts: Parts
    kernel: PlayedKernel
    cloud: PlayedCloud
    socket: Path
    state: Path
    changes: list[None]
    port: int
    identity: Identity

    def token(self, scope: str = "write", name: str = "test") -> str:
        """Make a token, as the operator on the machine does."""
        return str(self.daemon.request("POST", "/v1/tokens", {"name": name, "scope": scope})[1]["token"])

    def remote(self, method: str, target: str, token: str | None = None, body: object = None, **headers: str) -> Answer:
        """Send one request by TLS, as somebody on the network does; the certificate is the pinned one."""
        context = ssl.create_default_context(cafile=str(self.state / "api" / "tls.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {token}")
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, target, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.headers.items()), answer.read())
        finally:
            connection.close()

    @contextlib.contextmanager
    def following(self, target: str, token: str) -> Iterator[http.client.HTTPResponse]:
        """Follow an event stream by TLS; its head is read."""
        context = ssl.create_default_context(cafile=str(self.state / "api" / "tls.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)
        with contextlib.closing(connection):
            headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
            connection.request("GET", target, headers=headers)
            yield connection.getresponse()

    def many(self, target: str, token: str, count: int) -> list[int]:
        """Send one request after the other on one connection; return the statuses."""
        context = ssl.create_default_context(cafile=str(self.state / "api" / "tls.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)
        statuses = []
        try:
            for _ in range(count):
                connection.request("GET", target, headers={"Authorization": f"Bearer {token}"})
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
                assert answer.status != 429 or int(answer.headers["Retry-After"]) >= 1
        finally:
            connection.close()
        return statuses

    @property
    def daemon(self) -> Daemon:
        return Daemon(str(self.socket), timeout=10)

    @contextlib.contextmanager
    def store(self) -> Iterator[IntentStore]:
        """The same database through a connection of this thread."""
        store = IntentStore(self.state / "nexthop.db")
        try:
            yield store
        finally:
            store.close()

    def cidrs(self) -> list[str]:
        with self.store() as store:
            return [str(intent.network) for intent in store.all()]


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[Appliance]:
    """An appliance that has joined no link yet."""
    with serving(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance with one link, hk, for all tests of a file that end in a refusal and so change nothing."""
    with serving(tmp_path_factory.mktemp("refusing")) as made:
        made.parts.links.join("hk", TOKEN)
        yield made


@pytest.fixture
def joined(appliance: Appliance) -> Appliance:
    """An appliance with one link, hk."""
    appliance.parts.links.join("hk", TOKEN)
    return appliance


class serving:  # noqa: N801  (reads as a phrase)
    """Answer in a thread with an event loop of its own, as the daemon does."""

    def __init__(self, tmp_path: Path) -> None:
        self._home = tmp_path
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._failed: list[BaseException] = []

    def __enter__(self) -> Appliance:
        state, run = self._home / "state", self._home / "run"
        state.mkdir(exist_ok=True)  # a test may have served from it before
        kernel, cloud, changes = PlayedKernel(), PlayedCloud(), list[None]()
        store = IntentStore(state / "nexthop.db")
        store.on_change(lambda: changes.append(None))
        pem = own(state / "api", ["localhost", "127.0.0.1"])
        listener = bound("127.0.0.1:0")
        known = identity(pem, pem)
        self._tls = Tls(listener, known.context)
        about = About("1.2.3", "127.0.0.1:8443", known.fingerprint, ("nexthop.example",))
        parts = Parts(store, Links(state, run), kernel, cloud, about=about, stop=self._stop)
        port = listener.getsockname()[1]
        made = Appliance(parts, kernel, cloud, run / "nexthopd.sock", state, changes, port, known)
        self._thread = threading.Thread(target=self._turn, args=(made,))
        self._thread.start()
        assert self._ready.wait(20), self._failed
        return made

    def _turn(self, made: Appliance) -> None:
        listener = bind(made.socket, grp.getgrgid(os.getegid()).gr_name)
        app = create_app(made.parts)
        try:
            self._loop.run_until_complete(serve(app, listener, self._stop, self._ready.set, self._tls))
        except BaseException as error:
            self._failed.append(error)
            self._ready.set()
            raise
        finally:
            made.parts.store.close()

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli(appliance: Appliance) -> Cli:
    """Run `nexthop` as a user does, against the appliance of this test."""
    return command(appliance.socket)


def command(socket: Path) -> Cli:
    def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "api.cli", *arguments],
            check=False,
            input=stdin,
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
            env={**os.environ, "NEXTHOP_SOCKET": str(socket), **environment},
        )

    return run
