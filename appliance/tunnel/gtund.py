"""gtund: the server's end. `gtund run` serves, `gtund client` says who may come in, `gtund legacy` is for migration.

It forwards between its clients and the prefixes that it serves, and masquerades towards those unless told not to, so
that nothing behind it needs a route to the tunnel's addresses.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gc
import json
import logging
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from appliance.notify import notify

from . import clients, config, identity, nat, report, token, tun
from .dataplane import give_way
from .legacy import server as legacy
from .legacy.config import read_server
from .planes import device_of
from .server import Server
from .strays import Strays

log = logging.getLogger("gtund")

_BACKLOG: Final = 1024
_DEFAULT: Final = Path("/etc/nexthop/gtund.toml")
_RUN: Final = Path("/run/gtund")


class Unusable(Exception):
    """What was asked for cannot be done; the message says what to do."""


def registry(settings: config.GtundConfig) -> clients.Registry:
    """Return the clients of this gtund."""
    tunnel = settings.tunnel
    place = Path(settings.server.state) / "clients"
    return clients.Registry(place, tunnel.subnet, tunnel.gateway, tunnel.first, tunnel.serve)


async def serve(settings: config.GtundConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    key = identity.ensure(Path(settings.server.state))
    tls, tunnel = identity.server_context(key), with_block(settings.tunnel, key)
    six = tunnel.six(tunnel.gateway)
    nat.apply(nat.render(nat.Zone(str(tunnel.gateway), tunnel.serve, str(six.ip) if six else None, snat=tunnel.snat)))
    nat.forward_packets(v6=six is not None)
    tun.forbid(tunnel.subnet)
    if tunnel.subnet6 is not None:
        tun.forbid(tunnel.subnet6)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # a unit's filter may forbid it, and gives enough from the start
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # strangers have descriptors, too
    listener = listen(settings.server.listen)
    server = Server(registry(settings), tunnel, tls, Strays(listener.family, listener.getsockname()))
    gc.freeze()  # what is there by now stays
    give_way()  # to the clients' data planes, whatever strangers ask of us
    task = asyncio.current_task()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: task and task.cancel())
    async with report.serve(Path(settings.server.run) / "gtund.sock", server.report):
        log.info("gtund listens on %s and serves %s", settings.server.listen, ", ".join(map(str, tunnel.serve)))
        notify("READY=1")
        with contextlib.suppress(asyncio.CancelledError):
            await server.run(listener)
        notify("STOPPING=1")


def with_block(tunnel: config.TunnelConfig, key: Path) -> config.TunnelConfig:
    """Return the same with an IPv6 block, if IPv6 is served and no block was named."""
    if tunnel.subnet6 is not None or all(network.version == 4 for network in tunnel.serve):
        return tunnel
    return replace(tunnel, subnet6=identity.block_of_file(key))


def listen(where: str) -> socket.socket:
    """Return a listening TCP socket, for IPv4 as well where it says ``[::]``; raise `Unusable`."""
    host, port = config.host_and_port(where, "[server] listen")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=host == "::")
    except OSError as error:
        raise Unusable(f"cannot listen on {where}: {error.strerror}") from None
    listener.setblocking(False)  # noqa: FBT003 - the standard library's own signature
    return listener


def add_client(settings: config.GtundConfig, name: str, prefixes: Sequence[clients.Network] = ()) -> str:
    """Register a client and return its join token."""
    return _token(settings, lambda known: known.add(name, time.time(), tuple(prefixes)))


def rotate_client(settings: config.GtundConfig, name: str) -> str:
    """Let a client enrol another key in place of the one that it has; return the join token for that."""
    return _token(settings, lambda known: known.rotate(name, time.time()))


def _token(settings: config.GtundConfig, grant: Callable[[clients.Registry], tuple[clients.Client, bytes]]) -> str:
    public = settings.server.public
    if not public:
        raise Unusable('set [server] public = "HOST:PORT" in gtund.toml: it is what clients connect to')
    host, port = config.host_and_port(public, "[server] public")
    pin = identity.pin_of_file(identity.ensure(Path(settings.server.state)))
    client, secret = grant(registry(settings))
    return token.encode(token.JoinToken(host, port, pin, client.name, base64.b64encode(secret).decode()))


def list_clients(settings: config.GtundConfig) -> list[dict[str, object]]:
    """Return each client's name, lease, networks, and what the running gtund says of it."""
    sessions = _ask(Path(settings.server.run) / "gtund.sock")
    return [
        {
            "name": client.name,
            "address": client.address,
            "prefixes": list(client.prefixes),
            "joined": client.joined,
            "session": sessions.get(client.name),
        }
        for client in registry(settings).all()
    ]


def _ask(path: Path) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError, ValueError):
        sock.settimeout(2)
        sock.connect(str(path))
        sock.shutdown(socket.SHUT_WR)  # no command
        answer: dict[str, object] = json.loads(sock.makefile().read())["clients"]
        return answer
    return {}


def _kind(kind: str) -> Callable[[str], Any]:
    """Return what reads an argument as the files' values are read: argparse hides what other errors say."""

    def read(text: str) -> Any:
        try:
            return config.read_value(kind, text)
        except config.BadValue as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, default=_DEFAULT, help="default: %(default)s")
    common.add_argument("--verbose", action="store_true")
    parser = argparse.ArgumentParser(prog="gtund", description="The server's end of Nexthop's tunnel.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("run", parents=[common], help="serve")
    verbs.add_parser("purge", parents=[common], help="remove our rules and devices from this machine's kernel")
    old = verbs.add_parser("legacy", help="serve clients of gtun 2.0.2, NOT ENCRYPTED, from its own TOML file")
    old.add_argument("--config", type=Path, required=True, help="gtund.toml of gtun 2.0.2")
    task = old.add_mutually_exclusive_group(required=True)
    task.add_argument("--serve", type=_kind("IPv4Network"), nargs="+", metavar="CIDR", help="what clients reach")
    old.add_argument("--no-snat", action="store_true", help="do not masquerade towards what is served")
    old.add_argument("--run", type=Path, default=_RUN, help="directory of the control socket; default: %(default)s")
    task.add_argument("--purge", action="store_true", help="remove its rules and device from this machine's kernel")
    old.add_argument("--verbose", action="store_true")
    client = verbs.add_parser("client", help="who may come in").add_subparsers(dest="noun", required=True)
    add = client.add_parser("add", parents=[common], help="register a client and print its join token")
    add.add_argument("name")
    text = "a network behind the client that it may send from, and that is reached by way of it; may be repeated"
    add.add_argument("--prefix", type=_kind("Network"), action="append", default=[], metavar="CIDR", help=text)
    client.add_parser("rm", parents=[common], help="forget a client, and cut it").add_argument("name")
    text = "print a join token for another key; the present one is good until that is enrolled"
    client.add_parser("rotate", parents=[common], help=text).add_argument("name")
    client.add_parser("ls", parents=[common], help="list clients").add_argument("--json", action="store_true")
    return parser


def _carry_out(options: argparse.Namespace) -> None:
    if options.verb == "legacy":
        _carry_out_legacy(options)
        return
    settings = config.read_gtund(options.config)
    match options.verb, getattr(options, "noun", None):
        case "run", _:
            asyncio.run(serve(settings))
        case "purge", _:
            nat.remove()
            for client in registry(settings).all():
                tun.destroy(device_of(client.name))
            tun.permit(settings.tunnel.subnet)
            tun.keep_behind(())
            key = Path(settings.server.state) / identity.FILE
            six = with_block(settings.tunnel, key).subnet6 if key.exists() else settings.tunnel.subnet6
            if six is not None:
                tun.permit(six)
        case _, "add":
            sys.stdout.write(add_client(settings, options.name, options.prefix) + "\n")
        case _, "rotate":
            sys.stdout.write(rotate_client(settings, options.name) + "\n")
        case _, "rm":
            registry(settings).remove(options.name)
        case _:
            found = list_clients(settings)
            sys.stdout.write(json.dumps(found, indent=2) + "\n" if options.json else _table(found))


def _carry_out_legacy(options: argparse.Namespace) -> None:
    settings = read_server(options.config)
    if options.purge:
        legacy.purge(settings)
    else:
        asyncio.run(legacy.serve(settings, tuple(options.serve), snat=not options.no_snat, run=options.run))


def _table(found: list[dict[str, object]]) -> str:
    rows = [("NAME", "ADDRESS", "STATE")]
    for client in found:
        state = "connected" if client["session"] else "joined" if client["joined"] else "not joined yet"
        rows.append((str(client["name"]), str(client["address"]), state))
    return "".join(f"{name:<12}{address:<18}{state}\n" for name, address, state in rows)


def main() -> None:
    """Run ``gtund run|client|purge|legacy``."""
    options = _parser().parse_args()
    logging.basicConfig(level=logging.DEBUG if options.verbose else logging.INFO, format="%(name)s: %(message)s")
    try:
        _carry_out(options)
    except clients.UnknownClient as error:
        sys.exit(f"gtund: there is no client {error}: `gtund client ls` lists them")
    except config.ConfigError as error:
        sys.stderr.write(f"gtund: {error}\n")
        sys.exit(2)  # starting again does not mend it
    except (
        Unusable,
        clients.ClientExists,
        clients.BadName,
        clients.BadPrefix,
        clients.DamagedClient,
        clients.PoolEmpty,
        nat.FirewallRefused,
        tun.DeviceRefused,
    ) as error:
        sys.exit(f"gtund: {error}")


if __name__ == "__main__":
    main()
