"""What the emulated route tables are made of, and what a caller may ask of them: values."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network


class ApiError(Exception):
    """An answer of the API that is an error: its code, its text and its HTTP status."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True, slots=True)
class NextHop:
    """Where an entry sends packets; `id` is empty for the system's own."""

    type: str
    id: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a table. While it is Modifying, packets still go to `hop` and `pending_hop` is what it will be."""

    id: str
    table: str
    destination: IPv4Network
    hop: NextHop
    custom: bool = True
    name: str = ""
    description: str = ""
    status: str = "Available"
    settled_at: float = 0.0
    changed_at: float = 0.0
    pending_hop: NextHop | None = None

    @property
    def shown_hop(self) -> NextHop:
        """What the API lists."""
        return self.pending_hop or self.hop


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller of CreateRouteEntry asks for."""

    table: str
    destination: str
    hop: NextHop
    name: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What a caller of ModifyRouteEntry asks for; None leaves it as it is."""

    hop: NextHop | None = None
    name: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Hop:
    """One kernel route of the virtual router: `via` is None where the destination is on the link itself."""

    table: str
    destination: IPv4Network
    via: IPv4Address | None
    interface: str
