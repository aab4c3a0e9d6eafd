"""`nexthop purge`: leave nothing of ours behind, and touch nothing else. For a machine whose daemons are stopped.

The order is that of removing one CIDR: first the cloud forgets it, then the kernel; so no packet is sent here that
nobody carries. Where the cloud cannot be asked nothing is removed at all, unless its entries are to stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from api.provider import provider_of
from appliance.config import Config, ConfigError, load
from appliance.forwardd import AlreadyRunning, CannotStart, alone
from appliance.kernel import host
from appliance.kernel.choose import backends
from appliance.kernel.route import Routes
from appliance.kernel.state import KernelError
from cloud.provider import CloudError, Owner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class CannotPurge(Exception):
    """Nothing, or not everything, was removed; the message says why and what to do."""


def purge(path: Path, *, cloud: bool = True) -> tuple[str, ...]:
    """Remove everything; return what it was, a line each. Raise `CannotPurge`."""
    try:
        config = load(path)
        with _stopped(config.paths.state), alone(config):
            return asyncio.run(_purge(config, cloud=cloud))
    except ConfigError as error:
        raise CannotPurge(str(error)) from None
    except AlreadyRunning:
        raise CannotPurge("nexthop-forward is running -> systemctl stop nexthop-forward, then again") from None
    except CannotStart as error:
        raise CannotPurge(str(error)) from None
    except CloudError as error:
        raise CannotPurge(
            f"the cloud's route entries could not be removed: {error} -> mend that, or say --keep-cloud"
        ) from None
    except (KernelError, OSError) as error:
        raise CannotPurge(f"{error} -> run it as root, and again") from None


@contextlib.contextmanager
def _stopped(state: Path) -> Iterator[None]:
    """Hold the state directory as a daemon does: it would put everything back."""
    descriptor = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise CannotPurge("nexthopd is running -> systemctl stop nexthopd.socket nexthopd, then again") from None
    finally:
        os.close(descriptor)


async def _purge(config: Config, *, cloud: bool) -> tuple[str, ...]:
    removed = []
    connect = provider_of(config.cloud) if cloud else None
    if connect is not None:
        provider = await connect()
        seen = await provider.observe()
        there = (*seen.entries, *seen.elsewhere)
        networks = sorted({entry.destination for entry in there if entry.owner is Owner.OURS}, key=str)
        for error in (await provider.withdraw(networks)).values():
            raise error
        removed += [f"route entry {network}" for network in networks]
    async with Routes() as routes:
        removed += await host.purge(routes, backends())
    return tuple(removed)
