"""`nexthop stray`: route entries with our mark that nobody asked for; they go on command only."""

from __future__ import annotations

from typing import Annotated

import typer

from api.commands.shared import AsJson, group, reach, tell

app = group("Route entries with our mark that nobody asked for.")


@app.command("rm")
def rm(
    context: typer.Context,
    cidr: Annotated[str, typer.Argument(help="As `nexthop status` names it.")],
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Remove a route entry of ours that nobody asked for."""
    from api.client import segment  # noqa: PLC0415

    _, answer = reach(context).request("DELETE", f"/v1/strays/{segment(cidr)}")
    tell(answer, f"{answer['cidr']}: leaving", json=json)
