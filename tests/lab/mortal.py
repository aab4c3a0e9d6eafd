"""`python -m tests.lab.mortal PROGRAM FILE FD --config ...`: a daemon that dies right after its n-th side effect.

PROGRAM is nexthopd or nexthop-forward. It has many lives, and what takes long at a start, the imports, is done once:
each byte that comes over socket FD is a birth (a fork), answered by the process id, and by 0 at the death. A side
effect is one write to netlink, one transaction of the firewall, one sysctl, one commit of the database, one writing
call that the cloud has taken (its answer is not read any more), and one word to the other daemon that it acts on: what
is about to be removed, what must stay, what is gone. FILE holds n; it is read at the start and on SIGUSR1, and the
count starts anew; without it the daemon is an ordinary one. What was done is appended to FILE.log, so that a test can
tell what lay before each death. Nothing of this is in the program itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from api import serve
from appliance import forwardd
from appliance.forwardclient import ForwardClient
from appliance.forwardserver import ForwardServer
from appliance.forwardtalk import Gone, Message, Removing, Stays
from appliance.intent import IntentStore
from appliance.kernel import choose, fib, host, probe
from appliance.kernel.firewall import Backend
from appliance.kernel.netlink import CREATE
from appliance.kernel.route import Routes
from cloud.aliyun import Rpc

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from appliance.kernel.netlink import Message as Netlink
    from appliance.kernel.state import Drift

_PROGRAM = sys.argv.pop(1)
_FILE = Path(sys.argv.pop(1))
_LINE = int(sys.argv.pop(1))
PID: Final = struct.Struct("i")
_PDEATHSIG: Final = 1  # uapi/linux/prctl.h
# What a daemon imports only when it needs it.
_LATER: Final = {
    "nexthopd": (
        *(
            "api.app",
            "api.provider",
            "api.server",
            "api.socket",
            "api.tls",
            "api.traffic",
            "cloud.aliyun",
            "cloud.choice",
        ),
        *("appliance.attract", "appliance.backup", "appliance.linkwatch", "appliance.paths", "appliance.surroundings"),
    ),
    "nexthop-forward": (
        *("appliance.forward", "appliance.intentreader", "appliance.install"),
        *("appliance.kernel.iptables", "appliance.kernel.nftables"),
    ),
}
_left: list[int] = []


def arm() -> None:
    """Read after how many side effects to die."""
    _left.clear()
    with contextlib.suppress(FileNotFoundError):
        _left.append(int(_FILE.read_text()))
        _FILE.unlink()


def effect(name: str) -> None:
    """Note one side effect, and die if it was the last one."""
    if not _left:
        return
    with _FILE.with_name(f"{_FILE.name}.log").open("a") as log:
        log.write(f"{name}\n")
    _left[0] -= 1
    if _left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def _wrap_routes() -> None:
    send = Routes._send

    def sent(self: Routes, message: Netlink) -> None:
        send(self, message)
        route = fib.entry(message.body)
        command = "add" if message.flags & CREATE else "del"
        effect(
            f"netlink route {command} {route and route.destination} {'' if route and route.device else 'unreachable'}"
        )

    Routes._send = sent  # type: ignore[method-assign]


def _wrap_firewall() -> None:
    def get(self: Any) -> int:
        return int(self.__dict__.get("writes", 0))

    def put(self: Any, value: int) -> None:
        self.__dict__["writes"] = value
        if value:
            effect(f"firewall {self.name}")

    Backend.writes = property(get, put)  # type: ignore[assignment]


def _wrap_sysctls() -> None:
    keep = host._keep

    def kept(setting: host.Sysctl) -> Drift | None:
        drift = keep(setting)
        if drift is not None:
            effect(f"sysctl {setting.key}")
        return drift

    host._keep = kept


def _wrap_store() -> None:
    writing = IntentStore._writing

    @contextlib.contextmanager
    def committed(self: IntentStore) -> Iterator[sqlite3.Connection]:
        with writing(self) as db:
            before = db.total_changes
            yield db
            changed = db.total_changes != before
        if changed:
            effect("commit")

    IntentStore._writing = committed  # type: ignore[method-assign]


def _wrap_cloud() -> None:
    answer = Rpc._answer

    def answered(self: Rpc, client: Any, request: Any, keys: Any, action: str) -> Any:
        body = answer(self, client, request, keys, action)
        if not action.startswith(("Describe", "List", "Get")):
            effect(f"cloud {action}")
        return body

    Rpc._answer = answered  # type: ignore[method-assign]


def _wrap_talk() -> None:
    """A word that was written is in the socket's buffer, and is heard even if its speaker dies at once."""
    for end in (ForwardServer, ForwardClient):
        tell = end._tell

        def told(self: Any, message: Message, tell: Any = tell) -> None:
            tell(self, message)
            if isinstance(message, Removing | Stays | Gone):
                effect(f"say {type(message).__name__.lower()}")

        end._tell = told  # type: ignore[method-assign]


def _spare_the_probe() -> None:
    """Judge the firewalls once, and by words alone: to try them takes a second of each of many lives."""
    defaults = choose.choose.__kwdefaults__
    assert defaults is not None
    defaults["ask"] = {name: probe.words(name) for name in ("iptables", "nftables")}.__getitem__


def born() -> None:
    """Return in a child for each birth; the parent never does."""
    libc = ctypes.CDLL(None)
    with socket.socket(fileno=_LINE) as line:
        while line.recv(1):
            pid = os.fork()
            if pid == 0:
                libc.prctl(_PDEATHSIG, signal.SIGKILL)
                return
            line.send(PID.pack(pid))
            os.waitpid(pid, 0)
            line.send(PID.pack(0))
    sys.exit(0)


if __name__ == "__main__":
    _spare_the_probe()
    for wrap in (_wrap_routes, _wrap_firewall, _wrap_sysctls, _wrap_store, _wrap_cloud, _wrap_talk):
        wrap()
    for later in _LATER[_PROGRAM]:
        importlib.import_module(later)
    born()
    arm()
    signal.signal(signal.SIGUSR1, lambda *_: arm())
    {"nexthopd": serve.main, "nexthop-forward": forwardd.main}[_PROGRAM]()
