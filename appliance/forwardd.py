"""nexthop-forward: the one program that changes this machine's routes, rules and sysctls. `forward`, and nothing else.

It needs CAP_NET_ADMIN, and CAP_NET_RAW where the firewall is iptables (its legacy interface is a raw socket). It takes
no request from the network and no order from anybody: it reads what is asked for, from disk and read-only, and makes
the kernel so, whether nexthopd lives or not. What it tells nexthopd, and what it asks, is in `appliance.forwardtalk`.

Exit codes as nexthopd's: 2 for a configuration that will not do, 1 where something is in the way.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import functools
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from appliance import log as logs
from appliance.config import DEFAULT_PATH, Config, ConfigError, load
from appliance.notify import Watchdog, notify

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from appliance.forward import Forward
    from appliance.kernel.choose import Chosen

log = logging.getLogger("appliance.forwardd")  # also as __main__

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 2

_LAST_CALL_SECONDS: Final = 3.0  # for a transaction of the firewall that is under way at the end


class CannotStart(Exception):
    """Something that only the operator can mend is in the way; the message says what to do."""


class AlreadyRunning(Exception):
    """Another nexthop-forward works on this machine."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run until it is told to stop."""
    for each in (signal.SIGTERM, signal.SIGINT):  # until the event loop has the one handler
        signal.signal(each, lambda *_: sys.exit(0))
    parser = argparse.ArgumentParser(prog="nexthop-forward", description="Routes, rules and sysctls of the appliance.")
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--verbose", action="store_true", help="log more")
    options = parser.parse_args(argv)
    logs.install(verbose=options.verbose)
    try:
        asyncio.run(run(load(options.config)))
    except ConfigError as error:
        _end(str(error), EXIT_CONFIG)
    except AlreadyRunning as error:
        _end(f"{error}: stop it first", EXIT_FAILED)
    except CannotStart as error:
        _end(str(error), EXIT_FAILED)
    except BaseExceptionGroup:  # from a task
        log.critical("ended by a mistake of its own; packets keep flowing", exc_info=True)
        _end("ended by a mistake of its own, which the log above shows", EXIT_FAILED)
    sys.exit(0)


def _end(text: str, code: int) -> NoReturn:
    sys.stderr.write(f"nexthop-forward: {text}\n")
    sys.exit(code)


async def run(config: Config) -> None:
    """Forward until SIGTERM or SIGINT; raise `CannotStart` or `AlreadyRunning`."""
    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    with alone(config):
        await _forward(config, stop)
        await _last_calls()


async def _forward(config: Config, stop: asyncio.Event) -> None:
    from appliance.forward import Forward  # noqa: PLC0415  (a config error need not wait for all these)
    from appliance.forwardserver import ForwardServer  # noqa: PLC0415
    from appliance.install import keep_sysctls  # noqa: PLC0415
    from appliance.intentreader import IntentReader  # noqa: PLC0415
    from appliance.kernel.route import Routes  # noqa: PLC0415
    from appliance.links import Links  # noqa: PLC0415

    watchdog = Watchdog()
    chosen = await _firewall(config)
    if stop.is_set():
        return
    async with Routes() as routes:
        server = ForwardServer(config.paths.forward)
        server.trust_owner_of(config.paths.state)
        forward = Forward(
            IntentReader(config.paths.database),
            Links(config.paths.state, config.paths.run),
            routes,
            chosen,
            server,
            progressed=watchdog.progressed,
            sysctls=functools.partial(keep_sysctls, conntrack=config.kernel.conntrack),
            inbound=config.kernel.inbound,
        )
        async with asyncio.TaskGroup() as tasks:
            loops = [
                tasks.create_task(forward.run(), name="forward"),
                tasks.create_task(server.run(forward), name="server"),
                tasks.create_task(_ready(forward), name="ready"),
            ]
            try:
                await stop.wait()
            finally:
                notify("STOPPING=1")
                for each in loops:
                    each.cancel()
    log.info("told to stop; routes and rules stay as they are")


async def _ready(forward: Forward) -> None:
    """Say so once a pass has come to its end: then the API may start."""
    while not forward.ready():  # noqa: ASYNC110  (once, at the start)
        await asyncio.sleep(0.01)
    notify("READY=1")


@contextlib.contextmanager
def alone(config: Config) -> Iterator[None]:
    """Hold the directory of the socket: two would fight over the kernel. A dead one's hold ends with it.

    Raises `AlreadyRunning`, or `CannotStart` where there is no such directory and none can be made.
    """
    place = config.paths.forward.parent
    try:
        place.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CannotStart(f"{error.filename}: {error.strerror}: set [paths] run in nexthop.toml, or make it") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"another nexthop-forward works in {place}") from None
        yield
    finally:
        os.close(descriptor)


async def _firewall(config: Config) -> Chosen:
    """Choose the firewall in a thread, since the probe takes a second."""
    from appliance.kernel.choose import choose  # noqa: PLC0415
    from appliance.kernel.firewall import FirewallError  # noqa: PLC0415

    try:
        chosen = await asyncio.to_thread(choose, config.kernel.firewall)
    except FirewallError as error:
        raise CannotStart(f"no firewall can hold our rules: {error}: install nftables") from None
    if chosen.fallback_reason:
        log.warning("the firewall is %s, not the preferred one: %s", chosen.firewall.name, chosen.fallback_reason)
    return chosen


async def _last_calls() -> None:
    """Give a thread that is in a system call a moment, then leave it behind: what it leaves is found at the start."""
    try:
        async with asyncio.timeout(_LAST_CALL_SECONDS):
            await asyncio.get_running_loop().shutdown_default_executor()
    except TimeoutError:
        log.warning("a change of the firewall is under way still and is left behind")
        logging.shutdown()
        os._exit(0)


if __name__ == "__main__":
    main()
