"""What only looks: the verdict, what would change, what is missing, what happened."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from api.commands.shared import EXIT_FAILED, AsJson, print_json, reach


def status(context: typer.Context, json: AsJson = False) -> None:  # noqa: FBT002
    """Show how the appliance does; the first line is the verdict, and anything but OK exits 1."""
    answer = reach(context).get("/v1/status")
    if json:
        print_json(answer)
    else:
        from api import screens  # noqa: PLC0415

        screens.status(answer, time.time())
    if answer["verdict"]["level"] != "ok":
        raise typer.Exit(EXIT_FAILED)


def plan(context: typer.Context, json: AsJson = False) -> None:  # noqa: FBT002
    """Show what would change in the cloud; change nothing."""
    answer = reach(context).get("/v1/plan")
    if json:
        print_json(answer)
        return
    from api.render import clean  # noqa: PLC0415

    for change in answer["changes"]:
        typer.echo(clean("{action} {cidr} in {table}: {text} (now: {now})".format(**change)))
    if not answer["changes"]:
        typer.echo("nothing to change")
    for table in answer["tables"]:
        typer.echo(clean("{table}: {ours} ours, {others} others', {free} free of {limit}".format(**table)))
    for each in answer["aggregates"]:
        typer.echo(clean(f"{each['cidr']} is exactly {', '.join(each['parts'])}"))


def doctor(context: typer.Context, json: AsJson = False) -> None:  # noqa: FBT002
    """Check every prerequisite in the cloud, and say how to mend it; exits 1 where one fails."""
    answer = reach(context).get("/v1/doctor")
    if json:
        print_json(answer)
    else:
        from api.render import clean  # noqa: PLC0415

        for each in answer["findings"]:
            fix = f" -> {each['fix']}" if each["fix"] and each["state"] != "ok" else ""
            typer.echo(clean(f"{each['state']:7} {each['code']}: {each['text']}{fix}"))
    if answer["verdict"] == "fail":
        raise typer.Exit(EXIT_FAILED)


def ram_policy(context: typer.Context) -> None:
    """Print the least that the instance's RAM role has to be allowed, as a policy document."""
    print_json(reach(context).get("/v1/ram-policy"))


def explain(
    context: typer.Context,
    ip: Annotated[str, typer.Argument(help="An address that a host of the VPC cannot reach, or can.", metavar="IP")],
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Say which way packets to IP take, and where they stop; exits 1 where they do not arrive."""
    from api.client import segment  # noqa: PLC0415

    answer = reach(context).get(f"/v1/explain/{segment(ip)}")
    if json:
        print_json(answer)
    else:
        from api import screens  # noqa: PLC0415

        screens.explanation(answer)
    if not all(step["ok"] for step in answer["steps"]):
        raise typer.Exit(EXIT_FAILED)


def routes(context: typer.Context, json: AsJson = False) -> None:  # noqa: FBT002
    """Show the VPC's route tables: what is ours, what is others', and what is in the way."""
    answer = reach(context).get("/v1/routes")
    if json:
        print_json(answer)
    else:
        from api import screens  # noqa: PLC0415

        screens.routes(answer)
