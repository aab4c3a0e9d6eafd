"""The firewall in iptables-legacy, by python-iptables, and in ipset.

Chains NEXTHOP-FORWARD, NEXTHOP-INPUT, NEXTHOP-POSTROUTING and NEXTHOP-MANGLE, each hooked by one jump at the top of
the built-in chain, so that a foreign FORWARD policy of DROP (Docker sets it) does not reach our traffic. A table is
committed whole; between tables nat goes first, because a packet that is forwarded before MASQUERADE is there makes an
un-NATed conntrack entry. Sets are filled before any rule refers to them, and lose what is too much when all else is
done: while a CIDR changes its set it is in both, never in none.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from typing import Any

from appliance.kernel import ipset, shapes, xt, xtables
from appliance.kernel.firewall import Backend
from appliance.kernel.rules import Chain, Layout, Line, Rules, layout, version_of


class Iptables(Backend):
    """The rules in the iptables-legacy tables of the network namespace that the calling thread is in."""

    name = "iptables"

    def __init__(self, *, alone: bool = False) -> None:
        super().__init__(alone=alone)
        self._one_at_a_time = threading.Lock()  # libiptc's error state is the process's

    def spell(self, rules: Rules) -> None:
        """Have the library build every rule: what it lacks, such as an option of TCPMSS, shows without a table."""
        wanted = layout(rules)
        for line in wanted.lines:
            for version in filter(line.of, (4, 6) if _concerns6(wanted) else (4,)):
                shapes.shape(version, line.action, line.state)

    def faults(self, wanted: Layout) -> tuple[str, ...]:
        """Read our chains and sets, without creating a table that is not there."""
        with self._one_at_a_time:
            found = _faults(4, wanted)
            if _concerns6(wanted):
                found += _faults(6, wanted)
            elif _present6():
                found.append("our chains for IPv6 are there without an IPv6 CIDR")
        return tuple(found)

    def put(self, wanted: Layout) -> None:
        """Write each set and table that differs, nat first. IPv6 is touched only for an IPv6 CIDR."""
        with self._one_at_a_time, self._locked():
            self._put(4, wanted)
            if _concerns6(wanted):
                self._put(6, wanted)
            else:
                self._purge(6)

    def purge(self) -> None:
        """Remove our jumps, chains and sets."""
        with self._one_at_a_time, self._locked():
            self._purge(4)
            self._purge(6)

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._alone else xtables.locked()

    def _put(self, version: int, wanted: Layout) -> None:
        sets = {name: prefixes for name, prefixes in wanted.sets.items() if version_of(name) == version}
        for name, prefixes in sets.items():
            if ipset.index(name) is None:
                ipset.create(name)
                self.writes += 1
            if missing := prefixes - ipset.members(name):
                ipset.add(name, missing)
                self.writes += 1
        indexes = _indexes(sets)
        for chain in xtables.TABLES:
            self._put_chain(version, chain, [line for line in wanted.lines if line.chain is chain], indexes)
        for name, prefixes in sets.items():
            if surplus := ipset.members(name) - prefixes:
                ipset.remove(name, surplus)
                self.writes += 1
        for name in ipset.names(version) - sets.keys():
            ipset.destroy(name)
            self.writes += 1

    def _put_chain(self, version: int, chain: Chain, wanted: list[Line], indexes: Mapping[str, int]) -> None:
        content = [line for line in wanted if line.of(version)]
        with xtables.opened(version, chain) as table:
            if not _chain_faults(table, version, chain, content, indexes):
                return
            name = xtables.name_of(chain)
            xtables.unhook(table, version, name)
            if table.is_chain(name):
                table.flush_entries(name)
            else:
                table.create_chain(name)
            for line in content:
                table.append_entry(name, xtables.buffer(_encode(line, version, indexes)))
            table.insert_entry(xtables.HOOKS[chain], xtables.buffer(shapes.jump(version, chain)), 0)
            table.commit()
            self.writes += 1

    def _purge(self, version: int) -> None:
        loaded = xtables.loaded(version)
        for chain in reversed(xtables.TABLES):
            name = xtables.name_of(chain)
            if xtables.TABLES[chain] not in loaded:
                continue
            with xtables.opened(version, chain) as table:
                if table.is_chain(name):
                    xtables.unhook(table, version, name)
                    table.flush_entries(name)
                    table.delete_chain(name)
                    table.commit()
                    self.writes += 1
        for name in ipset.names(version):
            ipset.destroy(name)
            self.writes += 1


def _concerns6(wanted: Layout) -> bool:
    return any(version_of(name) == 6 for name in wanted.sets)


def _present6() -> bool:
    loaded = xtables.loaded(6)
    for chain, table_name in xtables.TABLES.items():
        if table_name in loaded:
            with xtables.opened(6, chain) as table:
                if table.is_chain(xtables.name_of(chain)):
                    return True
    return False


def _faults(version: int, wanted: Layout) -> list[str]:
    sets = {name: prefixes for name, prefixes in wanted.sets.items() if version_of(name) == version}
    there = ipset.names(version)
    faults = [f"the set {name} is none that we need" for name in sorted(there - sets.keys())]
    faults += [f"the set {name} is not as wanted" for name in sets if ipset.members(name) != sets[name]]
    indexes = _indexes(sets)
    loaded = xtables.loaded(version)
    for chain, table_name in xtables.TABLES.items():
        if table_name not in loaded:
            faults.append(f"there is no table {table_name}, IPv{version}")
            continue
        content = [line for line in wanted.lines if line.chain is chain and line.of(version)]
        with xtables.opened(version, chain) as table:
            faults += _chain_faults(table, version, chain, content, indexes)
    return faults


def _indexes(sets: Mapping[str, object]) -> dict[str, int]:
    """Return the numbers of the sets; of one that is not there, a number that no set has (IPSET_INVALID_ID)."""
    found = {name: ipset.index(name) for name in sets}
    return {name: 0xFFFF if number is None else number for name, number in found.items()}


def _chain_faults(table: Any, version: int, chain: Chain, wanted: list[Line], indexes: Mapping[str, int]) -> list[str]:
    """Return texts of how a chain differs from what is wanted, byte for byte."""
    name, hook = xtables.name_of(chain), xtables.HOOKS[chain]
    where = f"(table {xtables.TABLES[chain]}, IPv{version})"
    if not table.is_chain(name):
        return [f"chain {name} is missing {where}"]
    faults = []
    jump = xt.form(shapes.jump(version, chain), version, name.encode())
    hooked = [
        (number, xt.form(raw, version, target))
        for number, (raw, target) in enumerate(xtables.entries(table, hook))
        if target == name.encode()
    ]
    if not hooked:
        faults.append(f"the jump from {hook} to {name} is missing {where}")
    elif hooked != [(0, jump)]:
        faults.append(f"the jump from {hook} to {name} is not the first rule there, the only one, and ours {where}")
    found = [xt.form(raw, version, target) for raw, target in xtables.entries(table, name)]
    if found != [xt.form(_encode(line, version, indexes), version, shapes.target(line.action)) for line in wanted]:
        faults.append(f"the rules in {name} are not those wanted {where}")
    return faults


def _encode(line: Line, version: int, indexes: Mapping[str, int]) -> bytes:
    return xt.stamp(shapes.shape(version, line.action, line.state), line, version, indexes)
