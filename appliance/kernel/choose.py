"""Which firewall back-end to use: the preferred one if it can hold every shape of rule that we need, else the other.

python-iptables may be absent, or fail for one shape while the rest works (on Debian 13, TCPMSS); nft may not be
installed. So each is tried in a scratch network namespace before anything is written, and what is wrong is told.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from appliance.kernel.firewall import Backend, Firewall, FirewallError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Chosen:
    """The firewall to use. `fallback_reason` says why it is not the preferred one, None when it is.

    `v6_fault` says why it cannot hold rules for IPv6, None when it can. `others` are the back-ends not chosen: rules
    that an earlier run left in them still act, so purge them once the first `write` has succeeded.
    """

    firewall: Firewall
    fallback_reason: str | None = None
    v6_fault: str | None = None
    others: tuple[Firewall, ...] = ()


# Imported only when used: iptc loads kernel modules as it is imported, and may not be there at all.
_BACKENDS: Final = {
    "iptables": ("appliance.kernel.iptables", "Iptables"),
    "nftables": ("appliance.kernel.nftables", "Nftables"),
}
_HERE: Final = Path(__file__).parents[2]  # where a child finds this package, wherever we were started
_PROBE_TIMEOUT: Final = 120.0  # seconds; a burstable instance without credits has a tenth of a core


def backend(name: str, *, alone: bool = False) -> Backend:
    """Return the back-end of this name; `FirewallError` when what it needs is not installed. `alone`: see `Backend`."""
    module, kind = _BACKENDS[name]
    try:
        found: Backend = getattr(importlib.import_module(module), kind)(alone=alone)
    except (ImportError, OSError, AttributeError) as failure:  # iptc binds C libraries while it is imported
        raise FirewallError(f"{name} cannot be used here: {failure}") from None
    return found


def probe(name: str) -> Mapping[str, str | None]:
    """Return, per shape of rule, the text of why this back-end cannot hold it here, or None where it can.

    A child tries in a network namespace of its own, so that a crash of a library is a text, too. Where none can be
    made, it only puts the rules into words.
    """
    command = [sys.executable, "-m", "appliance.kernel.probe", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_TIMEOUT, check=False, cwd=_HERE)
    except subprocess.TimeoutExpired:
        return {"any rule": f"no answer within {_PROBE_TIMEOUT:g} s"}
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-1:] or ["without a word"]
        return {"any rule": f"the probe ended with status {done.returncode}: {said[0]}"}
    verdict: dict[str, str | None] = json.loads(done.stdout)
    return verdict


def choose(preferred: str, *, v6: bool = False, ask: Callable[[str], Mapping[str, str | None]] = probe) -> Chosen:
    """Return the preferred back-end if it can hold every shape of rule that we use, else the other one.

    The IPv6 shapes count only with `v6`: a machine without IPv6 tables is no reason to change back-ends for IPv4. Raise
    `FirewallError` when neither will do, `ValueError` for a name that is none. Blocks for about a second.
    """
    if preferred not in _BACKENDS:
        raise ValueError(f"there is no firewall {preferred!r}: write one of {', '.join(_BACKENDS)}")
    reasons: list[str] = []
    for name in (preferred, *(name for name in _BACKENDS if name != preferred)):
        faults = {shape: text for shape, text in ask(name).items() if text is not None}
        faults6 = {shape: text for shape, text in faults.items() if shape.startswith("IPv6")}
        counted = faults if v6 else {shape: faults[shape] for shape in faults.keys() - faults6.keys()}
        if counted:
            reasons.append(f"{name} cannot hold a rule we need ({_first(faults, counted)})")
            continue
        try:
            return Chosen(backend(name), "; ".join(reasons) or None, _first(faults, faults6) or None, _others(name))
        except FirewallError as failure:
            reasons.append(str(failure))
    raise FirewallError("; ".join(reasons))


def _first(faults: Mapping[str, str], counted: Mapping[str, str]) -> str:
    """Return the first counted fault, in the order of the probe."""
    return next((f"{shape}: {text}" for shape, text in faults.items() if shape in counted), "")


def backends() -> tuple[Firewall, ...]:
    """Return every back-end that can be used here."""
    return _others("")


def _others(chosen: str) -> tuple[Firewall, ...]:
    found: list[Firewall] = []
    for name in _BACKENDS:
        if name != chosen:
            try:
                found.append(backend(name))
            except FirewallError:
                continue
    return tuple(found)
