"""What may be said about one CIDR beside where it goes. Pure.

Each option has one spelling, the same in the API, on the command line and in the database; `BadOption` says what to
write instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

SMALLEST_MSS: Final = 536  # RFC 9293, 3.7.1: what a host takes without being told; for IPv6 it is 1220
LARGEST_MSS: Final = 65495
AUTO: Final = -1
OFF: Final = 0


class BadOption(ValueError):
    """The text is no value of this option; the message says what to write."""

    def __init__(self, option: str, text: str) -> None:
        super().__init__(text)
        self.option = option


class WhenDown(Enum):
    """What becomes of the cloud's route entry while the link is down.

    KEEP: it stays, and we answer "unreachable": nothing leaves unprotected. WITHDRAW: it goes after a hold-down, so
    that the VPC sends the packets by whatever less specific way it has.
    """

    KEEP = "keep"
    WITHDRAW = "withdraw"


@dataclass(frozen=True, slots=True)
class Target:
    """What to ask for a sign of life through the tunnel: a TCP port, or, where `port` is 0, an ICMP echo."""

    address: IPv4Address | IPv6Address
    port: int = 0

    def __str__(self) -> str:
        if not self.port:
            return f"icmp:{self.address}"
        return f"tcp:[{self.address}]:{self.port}" if self.address.version == 6 else f"tcp:{self.address}:{self.port}"


def parse_target(text: str) -> Target | None:
    """Read ``icmp:10.244.1.20``, ``tcp:10.244.1.20:80`` or ``tcp:[fd00::1]:80``; "" is None."""
    if not text:
        return None
    kind, _, rest = text.partition(":")
    host, port = (rest, "0") if kind == "icmp" else (rest.rpartition(":")[0], rest.rpartition(":")[2])
    try:
        target = Target(ip_address(host.removeprefix("[").removesuffix("]")), int(port))
    except ValueError:
        target = None
    if target is not None and {"icmp": target.port == 0, "tcp": 0 < target.port < 65536}.get(kind, False):
        return target
    text = f"{text!r} is no probe target: write icmp:ADDRESS or tcp:ADDRESS:PORT, such as tcp:10.244.1.20:80"
    raise BadOption("probe", text)


def parse_mss(text: str) -> int:
    """Read ``auto`` (the path's MTU), ``off``, or a number of bytes; return `AUTO`, `OFF` or that number."""
    if text in {"auto", "off"}:
        return AUTO if text == "auto" else OFF
    if text.isascii() and text.isdecimal() and SMALLEST_MSS <= int(text) <= LARGEST_MSS:
        return int(text)
    raise BadOption("mss", f"{text!r} is no MSS: write auto, off, or {SMALLEST_MSS} to {LARGEST_MSS} bytes")


def mss_text(mss: int) -> str:
    """Return the spelling that `parse_mss` reads."""
    return {AUTO: "auto", OFF: "off"}.get(mss, str(mss))


def parse_when_down(text: str) -> WhenDown:
    """Read ``keep`` or ``withdraw``."""
    try:
        return WhenDown(text)
    except ValueError:
        raise BadOption("when_down", f"{text!r} is no policy: write keep or withdraw") from None
