"""What the operator asked for, as values.

An `Intent` is one CIDR, reached *via* one link. It lives through three phases, and only these steps exist:

    POST   -> PRESENT               whatever it was before
    DELETE -> PRESENT becomes LEAVING
    attract -> LEAVING becomes WITHDRAWN, after a pass that saw no entry in the cloud and sent nothing
    forward -> drops the record of a WITHDRAWN one, after it saw the kernel without the route, at that revision

`forward` carries PRESENT and LEAVING; `attract` wants what is PRESENT and carried. A snapshot of "wanted" and "there"
says nothing of a request in flight: with two set differences instead of phases, a create that lands after its delete
leaves the cloud pointing at a router that no longer carries the CIDR. tests/appliance/test_phases.py walks them all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from appliance.options import AUTO, Target, WhenDown

Network = IPv4Network | IPv6Network

# Digits, dots and a prefix length, or an IPv6 one. `ip_network` alone also takes host masks ("10.0.0.0/0.255.255.255"),
# padded lengths ("/08") and integers, which an operator never means.
_SPELLING: Final = re.compile(r"(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:]*)/(?:0|[1-9]\d{0,2})", re.ASCII)


HOLD_DOWN: Final = 30.0
"""Seconds: a link that flaps shall not make the cloud's route table flap."""


class BadCidr(ValueError):
    """The text is not a CIDR as we take it; the message says what to write instead."""


class Phase(Enum):
    """Where a CIDR stands between being asked for and being gone."""

    PRESENT = "present"
    LEAVING = "leaving"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Intent:
    """One CIDR that the operator wants reached via the link named `via`.

    `snat`: masquerade what enters the tunnel, so that the far end needs no route back.
    `created_at`: seconds since the epoch. `mss`: `AUTO`, `OFF` or bytes. `probe`: what to ask for a sign of life.
    `when_down`, `hold_down`: what becomes of the cloud's entry once the link was down for so many seconds.
    `revision`: which change made the record what it is; no two changes ever have the same. It is no part of what is
    asked for, so two intents are equal without it.
    """

    network: Network
    via: str
    snat: bool = True
    comment: str = ""
    phase: Phase = Phase.PRESENT
    created_at: float = 0.0
    mss: int = AUTO
    probe: Target | None = None
    when_down: WhenDown = WhenDown.KEEP
    hold_down: float = HOLD_DOWN
    revision: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Bar:
    """Why a CIDR is not carried though it is asked for: a stable code, and a text for people."""

    code: str
    text: str


def parse_cidr(text: str) -> Network:
    """Read a CIDR in its one canonical form, e.g. ``10.244.0.0/16``; raise `BadCidr` with the mend otherwise."""
    if not _SPELLING.fullmatch(text):
        raise BadCidr(f"{text!r} is not a CIDR: write a network and its prefix length, such as 10.244.0.0/16")
    try:
        network = ip_network(text, strict=False)
    except ValueError as error:
        raise BadCidr(f"{text!r} is not a CIDR: {error}") from None
    if network.network_address != ip_network(text.partition("/")[0]).network_address:
        raise BadCidr(f"{text!r} has host bits set: did you mean {network}?")
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise BadCidr(f"{text!r} is an IPv4-mapped address: write it as an IPv4 CIDR")
    return network
