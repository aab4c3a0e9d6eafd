"""Every firewall rule of this machine as the usual programs show it, ours and others', for a support bundle.

Only who has CAP_NET_ADMIN may see them. Each is asked for on its own: what cannot be had is said in its place.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Final

COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "nftables": ("nft", "list", "ruleset"),
    "iptables-legacy": ("iptables-legacy-save", "-c"),
    "ip6tables-legacy": ("ip6tables-legacy-save", "-c"),
    "iptables-nft": ("iptables-nft-save",),
    "ipset": ("ipset", "save"),
}
_SECONDS: Final = 2.0  # for each
_LONGEST: Final = 1 << 20  # characters of each


def rules() -> dict[str, str]:
    """Return the text of each program, by the name of what it shows. Blocks for some 50 ms; raises nothing."""
    return {name: _said(command)[-_LONGEST:] for name, command in COMMANDS.items()}


def _said(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            check=False,
        )
    except OSError as failure:
        return f"{command[0]}: {failure.strerror}\n"
    except subprocess.TimeoutExpired:
        return f"{command[0]}: no end after {_SECONDS:g} s\n"
    return done.stdout.decode("utf-8", "replace")
