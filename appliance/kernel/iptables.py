"""The firewall in iptables-legacy, by python-iptables. The only importer of `iptc`.

Chains NEXTHOP-FORWARD, NEXTHOP-POSTROUTING and NEXTHOP-MANGLE, each hooked by one jump at the top of the built-in
chain, so that a foreign FORWARD policy of DROP (Docker sets it) does not reach our traffic. A table is committed
whole; between tables nat goes first, because a packet that is forwarded before MASQUERADE is there makes an un-NATed
conntrack entry.

What the library (1.2.0) leaves to us: it takes no /run/xtables.lock; its table objects are cached, and must be
refreshed before and closed after every use; asked for a rule's parameters it redirects file descriptor 1 of the whole
process; naming a target opens, and so creates, all five tables of the namespace. Therefore it builds each shape of
rule once, and those bytes are what rules are stamped from and what is read is compared with (xt.py).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import iptc

from appliance.kernel import xt
from appliance.kernel.firewall import (
    Action,
    Backend,
    Chain,
    FirewallError,
    Line,
    Seen,
    State,
    aimed,
    gather,
    lines,
    sourced,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LOCK: Final = Path("/run/xtables.lock")  # XT_LOCK_NAME, iptables/xshared.h
LOCK_WAIT: Final = 2.0  # seconds
_HERE: Final = Path(__file__).parents[2]  # where a child finds this package, wherever we were started
_BUILD_TIMEOUT: Final = 20.0  # seconds
_TABLES: Final = {Chain.POSTROUTING: "nat", Chain.MANGLE: "mangle", Chain.FORWARD: "filter"}  # in order of writing
_HOOKS: Final = {Chain.POSTROUTING: "POSTROUTING", Chain.MANGLE: "FORWARD", Chain.FORWARD: "FORWARD"}
_STATES: Final = {State.INVALID: "INVALID", State.ESTABLISHED: "RELATED,ESTABLISHED"}
_KINDS: Final = (
    (Action.DROP, State.INVALID),
    (Action.ACCEPT, State.ESTABLISHED),
    *((action, State.ANY) for action in Action if action is not Action.DROP),
)
_TCPMSS: Final = frozenset({Action.CLAMP, Action.SET_MSS})
_SOME_MSS: Final = 1300  # of the template
_TO_PATH: Final = 0xFFFF  # XT_TCPMSS_CLAMP_PMTU, linux/netfilter/xt_TCPMSS.h
_UNREACHABLE: Final = {4: "icmp-host-unreachable", 6: "icmp6-addr-unreachable"}

# "It is not there", so that naming a target does not open every table to see whether it is a chain of one of them.
for _class in (iptc.Table, iptc.Table6):
    _class.existing_table_names.update(dict.fromkeys(_class.ALL, False))


class Iptables(Backend):
    """The rules in the iptables-legacy tables of the network namespace that the calling thread is in."""

    name = "iptables"

    def __init__(self) -> None:
        super().__init__()
        self._one_at_a_time = threading.Lock()  # libiptc's error state is the process's

    def look(self) -> Seen:
        """Read our chains, without creating a table that is not there."""
        with self._one_at_a_time:
            seen4 = _look(4)
            if not _present(6):
                return seen4
            seen6 = _look(6)
        faults = list(seen4.faults + seen6.faults)
        rules = gather(seen4.lines + seen6.lines)
        wanted = lines(rules) if rules is not None else ()
        for version, seen in ((4, seen4), (6, seen6)):
            if tuple(line for line in wanted if line.of(version)) != seen.lines:
                faults.append(f"the rules for IPv{version} are not those that we write")
        if not _concerns6(seen6.lines):
            faults.append("our chains for IPv6 are there without an IPv6 CIDR")
        return Seen(seen4.lines + seen6.lines if faults else wanted, tuple(faults))

    def put(self, wanted: Sequence[Line]) -> None:
        """Write each table that differs, nat first. IPv6 tables are touched only for an IPv6 CIDR."""
        with self._one_at_a_time, _xtables_lock():
            self._put(4, wanted)
            if _concerns6(wanted):
                self._put(6, wanted)
            else:
                self._purge(6)

    def purge(self) -> None:
        """Remove our jumps and chains from every table that is loaded."""
        with self._one_at_a_time, _xtables_lock():
            self._purge(4)
            self._purge(6)

    def _put(self, version: int, wanted: Sequence[Line]) -> None:
        for chain in _TABLES:
            content = tuple(line for line in wanted if line.chain is chain and line.of(version))
            entries = [_encode(line, version) for line in content]
            with _table(version, chain) as table:
                if _read_chain(table, version, chain) == Seen(content):
                    continue
                name = _name(chain)
                _unhook(table, version, name)
                if table.is_chain(name):
                    table.flush_entries(name)
                else:
                    table.create_chain(name)
                for entry in entries:
                    table.append_entry(name, _buffer(entry))
                table.insert_entry(_HOOKS[chain], _buffer(_jump(version, chain)), 0)
                table.commit()
                self.writes += 1

    def _purge(self, version: int) -> None:
        loaded = _loaded(version)
        for chain in reversed(_TABLES):
            name = _name(chain)
            if _TABLES[chain] not in loaded:
                continue
            with _table(version, chain) as table:
                if table.is_chain(name):
                    _unhook(table, version, name)
                    table.flush_entries(name)
                    table.delete_chain(name)
                    table.commit()
                    self.writes += 1


def _name(chain: Chain) -> str:
    return f"NEXTHOP-{chain.name}"


def _concerns6(wanted: Sequence[Line]) -> bool:
    return any(line.destination is not None and line.destination.version == 6 for line in wanted)


def _loaded(version: int) -> frozenset[str]:
    """Return the tables that exist in this namespace; asking libiptc for another one would create it."""
    try:
        names = Path(f"/proc/thread-self/net/ip{'6' if version == 6 else ''}_tables_names").read_text(encoding="ascii")
    except OSError:
        return frozenset()
    return frozenset(names.split())


@contextmanager
def _xtables_lock() -> Iterator[None]:
    """Hold the lock that the iptables commands take: two writers of one table would undo each other."""
    try:
        descriptor = os.open(LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as failure:
        raise FirewallError(f"cannot open {LOCK}: {failure.strerror}") from None
    try:
        deadline = time.monotonic() + LOCK_WAIT
        while not _locked(descriptor):
            if time.monotonic() >= deadline:
                raise FirewallError(f"another program has held {LOCK} for {LOCK_WAIT:g} s: see `fuser -v {LOCK}`")
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _table(version: int, chain: Chain) -> Iterator[Any]:
    """Open the chain's table as it is now; what is not committed is forgotten."""
    name, table = _TABLES[chain], None
    try:
        table = (iptc.Table if version == 4 else iptc.Table6)(name, autocommit=False)
        table.refresh()
        yield table
    except iptc.IPTCError as failure:
        raise FirewallError(f"iptables, table {name}, IPv{version}: {failure}") from None
    finally:
        if table is not None:
            table.close()


def _present(version: int) -> bool:
    loaded = _loaded(version)
    for chain, name in _TABLES.items():
        if name in loaded:
            with _table(version, chain) as table:
                if table.is_chain(_name(chain)):
                    return True
    return False


def _look(version: int) -> Seen:
    loaded, found, faults = _loaded(version), list[Line](), list[str]()
    for chain in Chain:
        if _TABLES[chain] not in loaded:
            faults.append(f"there is no table {_TABLES[chain]}, IPv{version}")
            continue
        with _table(version, chain) as table:
            seen = _read_chain(table, version, chain)
        found += seen.lines
        faults += seen.faults
    return Seen(tuple(found), tuple(faults))


def _read_chain(table: Any, version: int, chain: Chain) -> Seen:
    name, hook = _name(chain), _HOOKS[chain]
    where = f"(table {_TABLES[chain]}, IPv{version})"
    if not table.is_chain(name):
        return Seen((), (f"chain {name} is missing {where}",))
    faults = []
    hooked = [(number, raw) for number, (raw, target) in enumerate(_entries(table, hook)) if target == name.encode()]
    if not hooked:
        faults.append(f"the jump from {hook} to {name} is missing {where}")
    elif len(hooked) > 1 or hooked[0][0] != 0:
        faults.append(f"the jump from {hook} to {name} is not the first rule there, or not the only one {where}")
    elif xt.form(hooked[0][1], version, name.encode()) != xt.form(_jump(version, chain), version, name.encode()):
        faults.append(f"the jump from {hook} to {name} has conditions that are not ours {where}")
    found = [_decode(raw, target, version, chain) for raw, target in _entries(table, name)]
    if None in found:
        faults.append(f"a rule in {name} is none of ours {where}")
    return Seen(tuple(line for line in found if line is not None), tuple(faults))


def _entries(table: Any, chain: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield (bytes of the rule, name of its target)."""
    entry = table.first_rule(chain) if table.is_chain(chain) else None
    while entry:
        yield ctypes.string_at(ctypes.addressof(entry), entry.next_offset), table.get_target(entry) or b""
        entry = table.next_rule(entry)


def _unhook(table: Any, version: int, name: str) -> None:
    """Drop every jump to chain `name`, wherever it is: a chain that is referred to cannot be deleted."""
    for chain in [chain.name for chain in table.chains]:
        for raw, target in list(_entries(table, chain)):
            if target == name.encode():
                table.delete_entry(chain, _buffer(xt.name_target(raw, version, target)), _buffer(b"\xff" * len(raw)))


def _buffer(raw: bytes) -> Any:
    return (ctypes.c_ubyte * len(raw)).from_buffer_copy(raw)


def _build(version: int, action: Action, state: State) -> bytes:
    """Let the library build one rule of this shape. Never give it None: a segmentation fault from Python 3.12 on."""
    rule = iptc.Rule() if version == 4 else iptc.Rule6()
    if state is not State.ANY:
        rule.create_match("conntrack").ctstate = _STATES[state]
    if action in _TCPMSS:
        rule.protocol = "tcp"
        rule.create_match("tcp").tcp_flags = ["SYN,RST", "SYN"]
    rule.create_match("comment").comment = "nexthop"
    target = rule.create_target("TCPMSS" if action in _TCPMSS else action.name)
    if action is Action.CLAMP:
        target.clamp_mss_to_pmtu = ""
    elif action is Action.SET_MSS:
        target.set_mss = str(_SOME_MSS)
    elif action is Action.REJECT:
        target.reject_with = _UNREACHABLE[version]
    rule.final_check()
    return bytes(rule.rule)


def _build_all(version: int) -> None:
    """Be the child: print a line of JSON per shape."""
    for action, state in _KINDS:
        try:
            answer = {"rule": _build(version, action, state).hex()}
        except Exception as failure:
            answer = {"error": f"{type(failure).__name__}: {failure}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


@lru_cache
def _templates(version: int) -> dict[tuple[Action, State], bytes | str]:
    """Return a rule of each shape, or the text of why there is none.

    A child builds them, one per IP version: an extension that is registered for one version ends the process when it is
    asked for the other ("already registered"), and neither that nor a crash may take the daemon along.
    """
    command = [sys.executable, "-m", "appliance.kernel.iptables", str(version)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_BUILD_TIMEOUT, check=False, cwd=_HERE)
    except subprocess.TimeoutExpired:
        raise FirewallError(f"python-iptables built no rule within {_BUILD_TIMEOUT:g} s, IPv{version}") from None
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode != 0 or len(answers) != len(_KINDS):
        said = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        raise FirewallError(
            f"python-iptables ended its process with status {done.returncode} at rule {len(answers) + 1} of "
            f"{len(_KINDS)}, IPv{version}: {said}"
        )
    return {kind: _built(answer) for kind, answer in zip(_KINDS, answers, strict=True)}


def _built(answer: dict[str, str]) -> bytes | str:
    return bytes.fromhex(answer["rule"]) if "rule" in answer else answer["error"]


def _template(version: int, action: Action, state: State) -> bytes:
    found = _templates(version)[action, state]
    if isinstance(found, str):
        raise FirewallError(f"iptables cannot build a rule to {action.value}, IPv{version}: {found}")
    return found


@lru_cache
def _jump(version: int, chain: Chain) -> bytes:
    template = _template(version, Action.RETURN, State.ANY)
    return xt.name_target(xt.stamp(template, Line(chain, Action.RETURN), version), version, _name(chain).encode())


def _target(action: Action) -> bytes:
    return b"TCPMSS" if action in _TCPMSS else action.name.encode()


@lru_cache(maxsize=16384)
def _encode(line: Line, version: int) -> bytes:
    return xt.stamp(_template(version, line.action, line.state), line, version)


@lru_cache(maxsize=16384)
def _expected(line: Line, version: int) -> xt.Form:
    return xt.form(_encode(line, version), version, _target(line.action))


@lru_cache
def _kinds(version: int) -> dict[tuple[object, ...], tuple[Action, State]]:
    """Return the shape of a rule by what follows its header, for all shapes that the library can build here."""
    kinds: dict[tuple[object, ...], tuple[Action, State]] = {}
    for (action, state), template in _templates(version).items():
        if isinstance(template, bytes):
            kinds[xt.form(template, version, _target(action))[1:]] = (action, state)
    return kinds


def _decode(raw: bytes, target: bytes, version: int, chain: Chain) -> Line | None:
    """Return the line whose rule this is, byte for byte; None if it is not one of ours."""
    found = xt.form(raw, version, target)
    size = xt.mss(raw, version) if target == b"TCPMSS" else _TO_PATH
    # A size that is set is among the parameters: it is compared below.
    kind = _kinds(version).get(found[1:]) if size == _TO_PATH else (Action.SET_MSS, State.ANY)
    if kind is None:
        return None
    try:
        incoming, outgoing, destination, source = xt.ends(found.header, version)
    except ValueError:
        return None
    line = Line(
        *(chain, kind[0], incoming, outgoing),
        destination if aimed(chain, *kind, outgoing) else None,
        kind[1],
        source if sourced(chain, kind[0], incoming) else None,
        size if kind[0] is Action.SET_MSS else 0,
    )
    return line if _expected(line, version) == found else None


if __name__ == "__main__":
    _build_all(int(sys.argv[1]))
