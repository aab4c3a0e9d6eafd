"""`nexthop cidr`: the CIDRs that the VPC reaches through this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from api.commands.options import Comment, Force, HoldDown, Mss, Probe, Timeout, Wait, WhenDown, given
from api.commands.shared import AsJson, fail, group, print_json, reach, say, tell, usage, warn
from api.commands.waiting import until_carried, until_gone

Listed = Annotated[str, typer.Argument(help="As `nexthop cidr ls` shows it.")]

app = group("The CIDRs that the VPC reaches through this machine.")


@app.command("add")
def add(
    context: typer.Context,
    cidr: Annotated[str, typer.Argument(help="For example 10.244.0.0/16.")],
    via: Annotated[
        str | None, typer.Option(help="The link; needed only where there are several.", metavar="LINK")
    ] = None,
    snat: Annotated[
        bool | None,
        typer.Option("--snat/--no-snat", help="Masquerade, so that the far end needs no route back; on by default."),
    ] = None,
    comment: Comment = None,
    mss: Mss = None,
    probe: Probe = None,
    when_down: WhenDown = None,
    hold_down: HoldDown = None,
    force: Force = False,  # noqa: FBT002
    wait: Wait = True,  # noqa: FBT002
    timeout: Timeout = 10.0,
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Make every host of the VPC reach CIDR through this machine. Adding it twice is no error."""
    daemon = reach(context)
    asked = given(via=via, snat=snat, comment=comment, mss=mss, probe=probe, when_down=when_down, hold_down=hold_down)
    code, answer = daemon.request("POST", "/v1/cidrs", {"cidr": cidr, **asked, **({"force": True} if force else {})})
    warn(answer)
    say(f"{answer['cidr']} via {answer['via']}: {'recorded' if code == 201 else 'was recorded before'}")
    carried = True
    if wait:
        answer, carried = until_carried(daemon, answer, timeout)
    if json:
        print_json(answer)
    elif carried and wait:
        typer.echo(f"{answer['cidr']} via {answer['via']}: carried")
    elif not wait:
        typer.echo(f"{answer['cidr']} via {answer['via']}: {answer['phase']}")
    if not carried:
        fail(
            f"{answer['cidr']} is recorded, and not carried after {timeout:g} s -> "
            "nexthopd goes on trying; see what it says: nexthop status"
        )


@app.command("set")
def change(
    context: typer.Context,
    cidr: Listed,
    via: Annotated[str | None, typer.Option(help="The link.", metavar="LINK")] = None,
    snat: Annotated[bool | None, typer.Option("--snat/--no-snat", help="Masquerade, or not.")] = None,
    comment: Comment = None,
    mss: Mss = None,
    probe: Probe = None,
    when_down: WhenDown = None,
    hold_down: HoldDown = None,
    force: Force = False,  # noqa: FBT002
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Change how CIDR is carried, without a gap; what is not named stays as it is."""
    from api.client import segment  # noqa: PLC0415

    asked = given(via=via, snat=snat, comment=comment, mss=mss, probe=probe, when_down=when_down, hold_down=hold_down)
    if not asked:
        usage("nothing to change -> name at least one option: nexthop cidr set --help")
    body = {**asked, **({"force": True} if force else {})}
    _, answer = reach(context).request("PATCH", f"/v1/cidrs/{segment(cidr)}", body)
    warn(answer)
    tell(answer, f"{answer['cidr']}: " + ", ".join(f"{name} {answer[name]}" for name in asked), json=json)


@app.command("rm")
def rm(
    context: typer.Context,
    cidr: Listed,
    wait: Wait = True,  # noqa: FBT002
    timeout: Timeout = 10.0,
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Stop carrying CIDR: the cloud's route entry goes first, then the kernel's route."""
    from api.client import segment  # noqa: PLC0415

    daemon = reach(context)
    _, answer = daemon.request("DELETE", f"/v1/cidrs/{segment(cidr)}")
    say(f"{answer['cidr']}: leaving")
    gone = wait and until_gone(daemon, answer, timeout)
    if json:
        print_json(answer | {"gone": gone})
    elif gone:
        typer.echo(f"{answer['cidr']}: gone")
    elif not wait:
        typer.echo(f"{answer['cidr']}: leaving")
    if wait and not gone:
        fail(
            f"{answer['cidr']} is not gone after {timeout:g} s -> "
            "nexthopd goes on trying; see what it says: nexthop status"
        )


@app.command("adopt")
def adopt(
    context: typer.Context,
    cidr: Annotated[str, typer.Argument(help="A CIDR that was added, and that somebody else's entry blocks.")],
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Take over the route entry that somebody else has for CIDR, in place."""
    from api.client import segment  # noqa: PLC0415

    _, answer = reach(context).request("POST", f"/v1/cidrs/{segment(cidr)}/adopt")
    tell(answer, f"{answer['cidr']}: adopted", json=json)


@app.command("show")
def show(
    context: typer.Context,
    cidr: Listed,
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Show all that is known of CIDR: its options, and how far each layer is."""
    from api.client import segment  # noqa: PLC0415

    answer = reach(context).get(f"/v1/cidrs/{segment(cidr)}")
    if json:
        print_json(answer)
    else:
        from api import screens  # noqa: PLC0415

        screens.cidr(answer)


@app.command("ls")
def ls(context: typer.Context, json: AsJson = False) -> None:  # noqa: FBT002
    """List the CIDRs with the state of each layer."""
    answer = reach(context).get("/v1/cidrs")
    if json:
        print_json(answer)
    else:
        from api import render  # noqa: PLC0415

        render.cidrs(answer)
