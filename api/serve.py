"""`nexthopd`: the composition root. Config -> intents -> cloud -> API, in one TaskGroup, under one signal handler.

It needs no privilege: what changes the kernel is nexthop-forward (`appliance.forwardd`), a program of its own that
starts before it and goes on without it. Where the cloud cannot be reached at the start, CIDRs are carried all the same,
the API says so, and `attract` goes on asking. SIGTERM and SIGINT end the daemon with exit 0 and change nothing in the
cloud. A loop that dies of a mistake takes the daemon with it (exit 1), so that its supervisor starts a fresh one, which
observes everything anew.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from appliance import log as logs
from appliance.config import DEFAULT_PATH, Config, ConfigError, load
from appliance.notify import Watchdog, notify, period

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from api.parts import About, Parts
    from appliance.attract import Attract
    from appliance.forwardclient import ForwardClient
    from appliance.intent import IntentStore
    from appliance.kernel.route import Routes
    from appliance.kernel.state import Device
    from appliance.links import Links

log = logging.getLogger("api.serve")  # also as __main__

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 2

_FIRST_PASS_SECONDS: Final = 5.0  # a kernel that is slow to obey shall not keep its operator from asking why
_LAST_CALL_SECONDS: Final = 3.0  # for a call to the cloud that is under way at the end
_STUCK_SECONDS: Final = 600.0  # a cloud may be slow, but not so slow


class CannotStart(Exception):
    """Something that only the operator can mend is in the way; the message says what to do."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the daemon until it is told to stop."""
    for each in (signal.SIGTERM, signal.SIGINT):  # until the event loop has the one handler
        signal.signal(each, lambda *_: sys.exit(0))
    options = _options(argv)
    lines = logs.install(verbose=options.verbose)
    try:
        config = load(options.config)
        asyncio.run(run(config, options.config, lines))
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


async def run(config: Config, source: Path | None = None, lines: Collection[str] = ()) -> None:
    """Serve until SIGTERM or SIGINT; raise `CannotStart`. `source`: the file; `lines`: the last ones of the log."""
    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    from api.parts import About  # noqa: PLC0415
    from appliance.intent import IntentStore  # noqa: PLC0415  (a config error need not wait for all these)
    from appliance.kernel.route import Routes  # noqa: PLC0415
    from appliance.links import Links  # noqa: PLC0415

    _directories(config)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_alone(config.paths.state))
        store = stack.enter_context(contextlib.closing(IntentStore(config.paths.database)))
        links = Links(config.paths.state, config.paths.run)
        routes = await stack.enter_async_context(Routes())
        await _serve(config, stop, store, links, routes, About(config=source), lines)
    await _last_calls()


async def _serve(
    config: Config,
    stop: asyncio.Event,
    store: IntentStore,
    links: Links,
    routes: Routes,
    about: About,
    lines: Collection[str],
) -> None:
    """Run the loops and the API side by side until `stop`."""
    from api.parts import Parts  # noqa: PLC0415
    from api.provider import provider_of  # noqa: PLC0415
    from appliance.attract import Attract  # noqa: PLC0415
    from appliance.backup import keep  # noqa: PLC0415
    from appliance.forwardclient import ForwardClient  # noqa: PLC0415
    from appliance.intent import StoreUnavailable  # noqa: PLC0415
    from appliance.linkwatch import LinkWatch  # noqa: PLC0415
    from appliance.paths import Paths  # noqa: PLC0415
    from appliance.surroundings import gather_facts  # noqa: PLC0415
    from appliance.timing import Timings  # noqa: PLC0415
    from cloud.tally import Tally  # noqa: PLC0415

    async def devices() -> Mapping[str, Device]:
        return (await routes.observe()).devices

    timings, calls = Timings(), Tally()
    forward = ForwardClient(config.paths.forward, store, links, devices, timed=partial(timings.note, "kernel"))
    connect = provider_of(config.cloud, calls)
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
        timed=partial(timings.note, "cloud"),
    )
    watch.on_change(attract.wake)
    async with asyncio.TaskGroup() as tasks:
        loops = [
            tasks.create_task(forward.run(), name="forward"),
            tasks.create_task(attract.run(), name="attract"),
            tasks.create_task(watch.run(), name="links"),
            tasks.create_task(paths.run(), name="paths"),
            tasks.create_task(keep(store, config.paths.database, StoreUnavailable), name="backup"),
            tasks.create_task(_pulse(attract, config.cloud.resync_seconds + _STUCK_SECONDS), name="watchdog"),
        ]
        await _first_pass(forward, stop)
        try:
            known = connect is not None
            parts = Parts(
                store,
                links,
                forward,
                attract,
                known,
                paths,
                about=about,
                stop=stop,
                timings=timings,
                calls=calls,
                log=lines,
            )
            await _api(config, stop, parts)
        finally:
            for each in loops:
                each.cancel()
    log.info("told to stop; routes, rules and route entries stay as they are")


async def _api(config: Config, stop: asyncio.Event, parts: Parts) -> None:
    """Answer on the Unix socket, and by TLS where that is configured, until `stop`."""
    from dataclasses import replace  # noqa: PLC0415

    from api.app import create_app  # noqa: PLC0415
    from api.server import serve  # noqa: PLC0415
    from api.socket import SocketInUse, bind, identity, inherited, remove  # noqa: PLC0415
    from api.tls import Unusable, about, listen  # noqa: PLC0415
    from api.traffic import sample  # noqa: PLC0415

    path = config.paths.socket
    try:
        tls, fingerprint = listen(config)
        given = inherited()
        listener = given or bind(path, config.api.group)
    except (SocketInUse, Unusable) as error:
        raise CannotStart(str(error)) from None
    except OSError as error:
        raise CannotStart(f"cannot listen on {path}: {error}: set [paths] run in nexthop.toml") from None
    ours = None if given else identity(path)
    parts = replace(parts, about=about(config, fingerprint, parts.about.config))

    def ready() -> None:
        log.info("the API listens on %s", path)
        if fingerprint:
            log.info("the API listens on %s, its certificate's SHA-256 is %s", config.api.listen, fingerprint)
        notify("READY=1")

    try:
        async with asyncio.TaskGroup() as tasks:
            sampler = tasks.create_task(sample(parts), name="traffic")
            await serve(create_app(parts), listener, stop, ready, tls)
            sampler.cancel()
    finally:
        notify("STOPPING=1")
        if ours is not None:
            remove(path, ours)


def _directories(config: Config) -> None:
    """Make what is not there. nexthop-forward may read the state as a member of our group; keys are for us alone."""
    os.umask(0o027)
    try:
        config.paths.state.mkdir(mode=0o750, parents=True, exist_ok=True)
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


async def _first_pass(forward: ForwardClient, stop: asyncio.Event) -> None:
    """Wait until nexthop-forward has brought the kernel to what is asked for, but not for long."""
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


async def _pulse(attract: Attract, patience: float) -> None:
    """Feed the watchdog for as long as this event loop, which the API has, turns, and `attract` gets anywhere."""
    watchdog, loop = Watchdog(), asyncio.get_running_loop()
    seen, since = attract.turns, loop.time()
    while every := period() / 4:
        if attract.turns != seen:
            seen, since = attract.turns, loop.time()
        if loop.time() - since < patience:
            watchdog.progressed()
        await asyncio.sleep(every)


if __name__ == "__main__":
    main()
