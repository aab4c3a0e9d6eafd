"""How the options of a CIDR are written on the command line; what is not given is None, and then not sent."""

from __future__ import annotations

from typing import Annotated

import typer

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until kernel and cloud have followed.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait at most.", min=0.0)]

Comment = Annotated[str | None, typer.Option(help="A note for those who come after you.")]
Mss = Annotated[str | None, typer.Option(help="What TCP's MSS is held to: auto (the path's MTU), off, or bytes.")]
Probe = Annotated[
    str | None, typer.Option(help="What to ask for a sign of life: tcp:ADDRESS:PORT or icmp:ADDRESS; '' for nothing.")
]
WhenDown = Annotated[
    str | None,
    typer.Option(
        help="While the link is down: keep the route entry, so that hosts are told at once, or withdraw it, so that "
        "the VPC sends the packets by its less specific way.",
        metavar="keep|withdraw",
    ),
]
HoldDown = Annotated[float | None, typer.Option(help="Seconds that a link is down before withdrawing.", min=0.0)]
Force = Annotated[
    bool, typer.Option("--force", help="Even where packets then leave unprotected, or nobody knows the VPC yet.")
]


def given(**options: object) -> dict[str, object]:
    """Return what was given."""
    return {name: value for name, value in options.items() if value is not None}
