"""`nexthopd`: the composition root. Config -> kernel -> cloud -> API, in one TaskGroup, under one signal handler.

Forwarding starts before the API listens and needs no cloud: where that cannot be reached at the start, CIDRs are
carried all the same, the API says so, and `attract` goes on asking. SIGTERM and SIGINT end the daemon with exit 0 and
change nothing in the kernel or the cloud: packets keep flowing. A loop that dies of a mistake takes the daemon with it
(exit 1), so that its supervisor starts a fresh one, which observes everything anew.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from api import log as logs
from appliance.config import DEFAULT_PATH, CloudConfig, Config, ConfigError, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from api.parts import Parts
    from appliance.attract import Connect
    from appliance.forward import Forward
    from appliance.intent import IntentStore
    from appliance.kernel.choose import Chosen
    from appliance.kernel.route import Routes
    from appliance.links import Links
    from cloud.provider import Provider

log = logging.getLogger("api.serve")  # also as __main__

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 2

_FIRST_PASS_SECONDS: Final = 5.0  # a kernel that is slow to obey shall not keep its operator from asking why
_LAST_CALL_SECONDS: Final = 3.0  # for a call to the cloud or the firewall that is under way at the end


class CannotStart(Exception):
    """Something that only the operator can mend is in the way; the message says what to do."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the daemon until it is told to stop."""
    for each in (signal.SIGTERM, signal.SIGINT):  # until the event loop has the one handler
        signal.signal(each, lambda *_: sys.exit(0))
    options = _options(argv)
    logs.install(verbose=options.verbose)
    try:
        config = load(options.config)
        asyncio.run(run(config))
    except ConfigError as error:
        _end(str(error), EXIT_CONFIG)
    except CannotStart as error:
        _end(str(error), EXIT_FAILED)
    except BaseExceptionGroup as group:  # from a task
        if (known := group.subgroup(CannotStart)) is not None:
            _end(str(_first(known)), EXIT_FAILED)
        log.critical("ended by a mistake of its own; packets keep flowing", exc_info=True)
        _end("ended by a mistake of its own, which the log above shows", EXIT_FAILED)
    sys.exit(0)


def _first(group: BaseExceptionGroup[CannotStart]) -> CannotStart:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nexthopd", description="The daemon of the VPC next-hop appliance.")
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--verbose", action="store_true", help="log more")
    return parser.parse_args(argv)


def _end(text: str, code: int) -> NoReturn:
    sys.stderr.write(f"nexthopd: {text}\n")
    sys.exit(code)


async def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT; raise `CannotStart`."""
    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    from appliance.intent import IntentStore  # noqa: PLC0415  (a config error need not wait for all these)
    from appliance.kernel.route import Routes  # noqa: PLC0415
    from appliance.links import Links  # noqa: PLC0415

    _directories(config)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_alone(config.paths.state))
        store = stack.enter_context(contextlib.closing(IntentStore(config.paths.database)))
        links = Links(config.paths.state, config.paths.run)
        routes = await stack.enter_async_context(Routes())
        chosen = await _firewall(config, stop)
        if chosen is not None:
            await _serve(config, stop, store, links, routes, chosen)
    await _last_calls()


async def _serve(
    config: Config, stop: asyncio.Event, store: IntentStore, links: Links, routes: Routes, chosen: Chosen
) -> None:
    """Run the loops and the API side by side until `stop`."""
    from api.parts import Parts  # noqa: PLC0415
    from appliance.attract import Attract  # noqa: PLC0415
    from appliance.backup import keep  # noqa: PLC0415
    from appliance.forward import Forward  # noqa: PLC0415
    from appliance.intent import StoreUnavailable  # noqa: PLC0415
    from appliance.linkwatch import LinkWatch  # noqa: PLC0415
    from appliance.paths import Paths  # noqa: PLC0415
    from appliance.surroundings import gather_facts  # noqa: PLC0415

    forward = Forward(store, links, routes, chosen)
    connect = provider_of(config.cloud)
    paths = Paths(links, store)
    watch = LinkWatch(paths, store, forward.repaired)
    attract = Attract(
        store,
        connect,
        forward,
        lambda vpc: gather_facts(store, links, forward.devices, vpc),
        name=config.cloud.provider,
        resync=config.cloud.resync_seconds,
        withhold=watch.withhold,
    )
    watch.on_change(attract.wake)
    async with asyncio.TaskGroup() as tasks:
        loops = [
            tasks.create_task(forward.run(), name="forward"),
            tasks.create_task(attract.run(), name="attract"),
            tasks.create_task(watch.run(), name="links"),
            tasks.create_task(paths.run(), name="paths"),
            tasks.create_task(keep(store, config.paths.database, StoreUnavailable), name="backup"),
        ]
        await _first_pass(forward, stop)
        try:
            await _api(config, stop, Parts(store, links, forward, attract, connect is not None, paths))
        finally:
            for each in loops:
                each.cancel()
    log.info("told to stop; routes, rules and route entries stay as they are")


async def _api(config: Config, stop: asyncio.Event, parts: Parts) -> None:
    """Answer on the Unix socket until `stop`."""
    from api.app import create_app  # noqa: PLC0415
    from api.server import serve  # noqa: PLC0415
    from api.socket import SocketInUse, bind, identity, remove  # noqa: PLC0415

    path = config.paths.socket
    try:
        listener = bind(path, config.api.group)
    except SocketInUse as error:
        raise CannotStart(str(error)) from None
    except OSError as error:
        raise CannotStart(f"cannot listen on {path}: {error}: set [paths] run in nexthop.toml") from None
    ours = identity(path)

    def ready() -> None:
        log.info("the API listens on %s", path)
        notify("READY=1")

    try:
        await serve(create_app(parts), listener, stop, ready)
    finally:
        notify("STOPPING=1")
        remove(path, ours)


def _directories(config: Config) -> None:
    """Make what is not there; the state holds keys, so it is for root alone."""
    try:
        config.paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        config.paths.run.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise CannotStart(f"{error.filename}: {error.strerror}: set [paths] in nexthop.toml, or make it") from None


@contextlib.contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Hold the state directory: two daemons would fight over kernel and cloud. A dead one's hold ends with it."""
    descriptor = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(f"another nexthopd works in {state}: stop it first") from None
        yield
    finally:
        os.close(descriptor)


async def _firewall(config: Config, stop: asyncio.Event) -> Chosen | None:
    """Choose the firewall in a thread, since the probe takes a second; None where we are told to stop meanwhile."""
    from appliance.kernel.choose import choose  # noqa: PLC0415
    from appliance.kernel.firewall import FirewallError  # noqa: PLC0415

    try:
        chosen = await asyncio.to_thread(choose, config.kernel.firewall)
    except FirewallError as error:
        raise CannotStart(f"no firewall can hold our rules: {error}: install nftables") from None
    if chosen.fallback_reason:
        log.warning("the firewall is %s, not the preferred one: %s", chosen.firewall.name, chosen.fallback_reason)
    return None if stop.is_set() else chosen


def provider_of(cloud: CloudConfig) -> Connect | None:
    """Return what finds the cloud, None where none is configured. The SDK is imported when it is first asked."""
    if cloud.provider == "none":
        return None

    async def connect() -> Provider:
        from cloud.aliyun import connect as aliyun  # noqa: PLC0415
        from cloud.choice import Choice, Tag  # noqa: PLC0415
        from cloud.provider import Quota  # noqa: PLC0415

        return await aliyun(
            endpoint=cloud.endpoint,
            protocol=cloud.protocol,
            metadata=cloud.metadata,
            choice=Choice(cloud.route_tables, Tag.parse(cloud.route_table_tag) if cloud.route_table_tag else None),
            appliance_id=cloud.appliance_id,
            credentials=cloud.credentials,
            quota=Quota(cloud.route_quota, cloud.route_reserve),
        )

    return connect


async def _first_pass(forward: Forward, stop: asyncio.Event) -> None:
    """Wait until the kernel was brought to what is asked for, but not for long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FIRST_PASS_SECONDS):
            while not forward.ready() and not stop.is_set():  # noqa: ASYNC110  (two conditions, once)
                await asyncio.sleep(0.01)


async def _last_calls() -> None:
    """Give a thread that is in a system call or waits for the cloud a moment, then leave it behind.

    What it may still do is what a crash may leave, and is found by the next start's first look.
    """
    try:
        async with asyncio.timeout(_LAST_CALL_SECONDS):
            await asyncio.get_running_loop().shutdown_default_executor()
    except TimeoutError:
        log.warning("a call to the cloud is under way still and is left behind")
        logging.shutdown()
        os._exit(0)


def notify(state: str) -> None:
    """Tell systemd, where there is one (sd_notify(3)): one datagram to the socket that NOTIFY_SOCKET names."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # the abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(address)
            sender.sendall(state.encode())
    except OSError as error:
        log.warning("systemd cannot be told %s: %s", state, error)


if __name__ == "__main__":
    main()
