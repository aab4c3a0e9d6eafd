"""A table of iptables-legacy, by python-iptables: open it, walk a chain, hook one. The lock that comes with it.

What the library (1.2.0) leaves to us: it takes no /run/xtables.lock; its table objects are cached, and must be
refreshed before and closed after every use; naming a target opens, and so creates, all five tables of the namespace.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import iptc

from appliance.kernel import xt
from appliance.kernel.firewall import FirewallError
from appliance.kernel.rules import Chain

LOCK: Final = Path("/run/xtables.lock")  # XT_LOCK_NAME, iptables/xshared.h
LOCK_WAIT: Final = 2.0  # seconds
NAMES: Final = Path("/proc/thread-self/net/ip_tables_names")  # x_tables.c: 0440
# In order of writing.
TABLES: Final = {Chain.POSTROUTING: "nat", Chain.MANGLE: "mangle", Chain.FORWARD: "filter", Chain.INPUT: "filter"}
HOOKS: Final = {
    Chain.POSTROUTING: "POSTROUTING",
    Chain.MANGLE: "FORWARD",
    Chain.FORWARD: "FORWARD",
    Chain.INPUT: "INPUT",
}

# "It is not there", so that naming a target does not open every table to see whether it is a chain of one of them.
for _class in (iptc.Table, iptc.Table6):
    _class.existing_table_names.update(dict.fromkeys(_class.ALL, False))


def name_of(chain: Chain) -> str:
    """Return what a chain of ours is called."""
    return f"NEXTHOP-{chain.name}"


def loaded(version: int) -> frozenset[str]:
    """Return the tables that exist in this namespace; asking libiptc for another one would create it.

    The kernel lets root and root's group read their names, and no capability short of reading every file does.
    """
    place = NAMES.with_name(f"ip{'6' if version == 6 else ''}_tables_names")
    try:
        return frozenset(place.read_text(encoding="ascii").split())
    except FileNotFoundError:  # no table was ever made
        return frozenset()
    except OSError as failure:
        raise FirewallError(f"cannot read {place}: {failure.strerror}: run this with root's group") from None


@contextmanager
def locked() -> Iterator[None]:
    """Hold the lock that the iptables commands take: two writers of one table would undo each other."""
    try:
        descriptor = os.open(LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as failure:
        raise FirewallError(f"cannot open {LOCK}: {failure.strerror}") from None
    try:
        deadline = time.monotonic() + LOCK_WAIT
        while not _taken(descriptor):
            if time.monotonic() >= deadline:
                raise FirewallError(f"another program has held {LOCK} for {LOCK_WAIT:g} s: see `fuser -v {LOCK}`")
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def opened(version: int, chain: Chain) -> Iterator[Any]:
    """Open the chain's table as it is now; what is not committed is forgotten."""
    name, table = TABLES[chain], None
    try:
        table = (iptc.Table if version == 4 else iptc.Table6)(name, autocommit=False)
        table.refresh()
        yield table
    except iptc.IPTCError as failure:
        raise FirewallError(f"iptables, table {name}, IPv{version}: {failure}") from None
    finally:
        if table is not None:
            table.close()


def entries(table: Any, chain: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield (bytes of the rule, name of its target)."""
    entry = table.first_rule(chain) if table.is_chain(chain) else None
    while entry:
        yield ctypes.string_at(ctypes.addressof(entry), entry.next_offset), table.get_target(entry) or b""
        entry = table.next_rule(entry)


def unhook(table: Any, version: int, name: str) -> None:
    """Drop every jump to chain `name`, wherever it is: a chain that is referred to cannot be deleted."""
    for chain in [chain.name for chain in table.chains]:
        for raw, target in list(entries(table, chain)):
            if target == name.encode():
                table.delete_entry(chain, buffer(xt.name_target(raw, version, target)), buffer(b"\xff" * len(raw)))


def buffer(raw: bytes) -> Any:
    """Return bytes as libiptc takes them."""
    return (ctypes.c_ubyte * len(raw)).from_buffer_copy(raw)
