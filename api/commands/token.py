"""`nexthop token`: what lets others use the API over TLS. A token is shown once, when it is made."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from api.commands.shared import AsJson, group, print_json, reach, say, take_away

app = group("The tokens that let others use the API over TLS.")


@app.command("add")
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Who or what it is for.")],
    scope: Annotated[str, typer.Option(help="What it is good for.", metavar="read|write")] = "read",
    days: Annotated[int | None, typer.Option(help="How long it is good for; without end by default.", min=1)] = None,
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Make a token, and print it: it cannot be shown again."""
    asked = {"name": name, "scope": scope} | ({} if days is None else {"expires_days": days})
    _, answer = reach(context).request("POST", "/v1/tokens", asked)
    if json:
        print_json(answer)
        return
    say(f"{answer['name']}: may {answer['scope']}, {_until(answer)}; keep it, it is not shown again")
    typer.echo(answer["token"])


@app.command("ls")
def ls(context: typer.Context, json: AsJson = False) -> None:  # noqa: FBT002
    """List the tokens, without what they are."""
    answer = reach(context).get("/v1/tokens")
    if json:
        print_json(answer)
        return
    from api.render import table  # noqa: PLC0415

    rows = [
        [each["name"], each["scope"], _day(each["created"]), _until(each), _day(each["last_used"]) or "never"]
        for each in answer["tokens"]
    ]
    table(["NAME", "SCOPE", "MADE", "GOOD", "LAST USED"], rows)


@app.command("rm")
def rm(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="As `nexthop token ls` shows it.")],
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Take a token back; it is refused from now on."""
    take_away(context, "tokens", name, json=json)


def _until(token: dict[str, Any]) -> str:
    return f"until {_day(token['expires'])}" if token["expires"] else "without end"


def _day(at: float | None) -> str:
    """Return a moment in seconds since the epoch as this machine's date and time."""
    return datetime.fromtimestamp(at, UTC).astimezone().isoformat(" ", "minutes") if at else ""
