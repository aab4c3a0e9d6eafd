"""The machine itself: what it is to be (`setup`, and `firstboot` for systemd), and another version (`upgrade`)."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.commands.shared import EXIT_USAGE, fail, reach, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def firstboot(context: typer.Context) -> None:
    """Do what /etc/nexthop/firstboot.yaml says. systemd runs this on the first boot."""
    from api.firstboot import Place, from_file  # noqa: PLC0415

    daemon = reach(context)
    _carry_out(lambda: from_file(Place(), daemon))


def setup(context: typer.Context) -> None:
    """Ask what this machine is to be, and make it so. The same as a first boot with user-data."""
    from api.firstboot import Place, carry_out  # noqa: PLC0415
    from appliance.firstboot import BadFirstBoot, build  # noqa: PLC0415

    place = Place()
    if not sys.stdin.isatty():
        say(f"error: setup asks questions -> use a terminal, or write {place.document} and run `nexthop firstboot`")
        raise typer.Exit(EXIT_USAGE)
    if place.role.exists():
        fail(f"this machine is set up already, as {place.role.read_text().strip()} -> to begin anew: rm {place.role}")
    try:
        document = build(_questions())
    except BadFirstBoot as error:
        fail(str(error))
    daemon = reach(context)
    _carry_out(lambda: carry_out(document, place, daemon))
    typer.echo("Done. See how it does: nexthop status")


def upgrade(
    context: typer.Context,
    wheel: Annotated[Path, typer.Argument(help="A wheel of nexthop; new dependencies lie beside it.")],
) -> None:
    """Change to another version, while packets keep flowing; one that does not do well is taken back by itself."""
    from api.upgrade import Refused, RolledBack, upgrade  # noqa: PLC0415

    daemon = reach(context)
    try:
        for line in upgrade(wheel, daemon):
            with contextlib.suppress(OSError):  # it goes on where the terminal went away
                typer.echo(line)
    except Refused as error:
        fail(f"{error}; nothing was changed")
    except RolledBack as error:
        fail(f"the new version was taken back: {error}")


def _questions() -> dict[str, Any]:
    """Ask for what firstboot.yaml would say."""
    role = typer.prompt("What is this machine to be: appliance, or gtund (the far end)?", default="appliance")
    if role == "gtund":
        public = typer.prompt("HOST:PORT that appliances connect to")
        serve = typer.prompt("CIDRs that lie behind this machine, with spaces between them")
        return {"role": role, "server": {"public": public}, "tunnel": {"serve": serve.split()}}
    answers: dict[str, Any] = {"role": role}
    token = typer.prompt(
        "Join token, from `gtund client add` (not shown; empty for later)", default="", hide_input=True
    )
    if token:
        answers["links"] = {typer.prompt("What to call that link", default="hk"): token.strip()}
        cidrs = typer.prompt("CIDRs to reach by it, with spaces between them", default="")
        answers["cidrs"] = cidrs.split()
    if not typer.confirm("Does this machine keep a route table of Alibaba Cloud?", default=True):
        answers["cloud"] = {"provider": "none"}
    return answers


def _carry_out(work: Callable[[], Iterator[str]]) -> None:
    from api.firstboot import NotYet, Unusable  # noqa: PLC0415

    try:
        for line in work():
            typer.echo(line)
    except Unusable as error:
        say(f"error: {error}")
        raise typer.Exit(EXIT_USAGE) from None
    except NotYet as error:
        fail(f"{error} -> it may go better in a moment: run it again")
