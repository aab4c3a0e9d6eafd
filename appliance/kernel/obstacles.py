"""What in other people's firewall rules may stop our traffic. Found and told, never edited.

In nftables a drop in any base chain on the hook is final, whatever our chain accepted. Docker (through iptables-nft)
sets the FORWARD policy to DROP, firewalld ends its chain with a reject, and a legacy FORWARD policy of DROP stands in
nftables' way. This looks at policies and at an unconditional last rule; it cannot judge rules with conditions.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

from appliance.kernel.nfttext import TABLE

_TIMEOUT: Final = 10.0  # seconds
_FINAL: Final = {"drop", "reject"}


def obstacles(firewall: str) -> tuple[str, ...]:
    """Return texts for the operator on what may stop our traffic in spite of `firewall`; empty when nothing was found.

    `firewall` is the name of the back-end in use. Blocks for some 10 ms.
    """
    return (*(_nftables()), *(_legacy() if firewall != "iptables" else ()))


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _nftables() -> tuple[str, ...]:
    listing = _run("nft", "-j", "list", "ruleset")
    return judge(json.loads(listing)["nftables"]) if listing else ()


def judge(listing: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return what in a JSON listing of the whole rule set stands in the way of forwarding."""
    last: dict[tuple[str, str, str], str] = {}
    for rule in (item["rule"] for item in listing if "rule" in item):
        words = [kind for expression in rule["expr"] for kind in expression]
        final = words[-1] if words and words[-1] in _FINAL and set(words[:-1]) <= {"counter"} else ""
        last[rule["family"], rule["table"], rule["chain"]] = final
    found = []
    for chain in (item["chain"] for item in listing if "chain" in item):
        where = (chain["family"], chain["table"], chain["name"])
        if chain.get("hook") != "forward" or where[:2] == ("inet", TABLE):
            continue
        name = " ".join(where)
        if chain.get("policy") == "drop":
            found.append(
                f"nftables chain {name} has policy drop: what it does not accept itself is lost, whatever our rules "
                "say. Accept traffic from and to tun-* there (with Docker: in chain DOCKER-USER)"
            )
        elif last.get(where):
            found.append(
                f"nftables chain {name} ends with {last[where]}: what it does not accept before is lost, whatever our "
                "rules say. Accept traffic from and to tun-* there (with firewalld: put both in a zone that forwards)"
            )
    return tuple(found)


def _legacy() -> tuple[str, ...]:
    try:
        tables = Path("/proc/thread-self/net/ip_tables_names").read_text(encoding="ascii").split()
    except OSError:
        return ()
    if "filter" not in tables or not _run("iptables-legacy", "-w", "5", "-S", "FORWARD").startswith("-P FORWARD DROP"):
        return ()
    text = (
        "iptables-legacy's FORWARD chain has policy DROP: what it does not accept itself is lost, whatever our "
        'nftables rules say. Accept traffic from and to tun-* there, or set firewall = "iptables"'
    )
    return (text,)
