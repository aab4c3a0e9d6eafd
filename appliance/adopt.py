"""Make an entry that somebody else wrote ours, at a person's wish, where no packet is lost by it.

An entry that is adopted is from then on kept and withdrawn like one of our own, and it points here: so its CIDR has to
be asked for, the kernel has to carry it, and the guard must have nothing against it.
"""

from __future__ import annotations

from collections.abc import Collection

from appliance.guard import Facts, judge, refused
from appliance.model import Intent, Network, Phase


class NotAdoptable(Exception):
    """There is nothing to adopt, or it would be a black hole; the message says which, `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def require_adoptable(network: Network, intent: Intent | None, carried: Collection[Network], facts: Facts) -> None:
    """Raise `NotAdoptable` where nobody asks for this CIDR, nothing carries it, or the guard is against it."""
    if intent is None or intent.phase is not Phase.PRESENT:
        raise NotAdoptable("cidr-unknown", f"nobody asks for {network}")
    if network not in carried:
        raise NotAdoptable("not-carried", f"the kernel does not carry {network} yet: its packets would be lost here")
    if against := refused(judge(network, facts, via=intent.via)):
        raise NotAdoptable(against[0].code, against[0].text)
