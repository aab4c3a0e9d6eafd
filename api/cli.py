"""`nexthop`: the operator's command. A client of the daemon's API and nothing more, so it imports nothing heavy.

What was asked for goes to stdout, everything else to stderr; without a terminal it is plain text. Exit codes: 0 done
(for `status`: the verdict is OK), 1 refused or failed, 2 wrong usage. `nexthop --help` must answer at once: rich, HTTP
and JSON are imported where they are used, and the daemon's own packages never.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from api.client import Daemon

EXIT_FAILED = 1
EXIT_USAGE = 2

_POLL_SECONDS = 0.2
_TOKEN_PREFIX = "nexthop1_"  # noqa: S105  (appliance.tunnel.token, which would cost an import of hashlib and more)

app = typer.Typer(
    name="nexthop",
    help="Steer the VPC next-hop appliance on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cidr_app = typer.Typer(
    help="The CIDRs that the VPC reaches through this machine.", no_args_is_help=True, rich_markup_mode=None
)
link_app = typer.Typer(help="The tunnels to where those CIDRs are.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(cidr_app, name="cidr")
stray_app = typer.Typer(
    help="Route entries with our mark that nobody asked for.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(link_app, name="link")
app.add_typer(stray_app, name="stray")

AsJson = Annotated[bool, typer.Option("--json", help="Print the daemon's answer as JSON.")]
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
Force = Annotated[bool, typer.Option("--force", help="Withdraw even where packets then leave unprotected.")]


def _version(wanted: bool) -> None:  # noqa: FBT001  (typer's callback)
    if wanted:
        from importlib import metadata  # noqa: PLC0415

        try:
            typer.echo(f"nexthop {metadata.version('nexthop')}")
        except metadata.PackageNotFoundError:
            typer.echo("nexthop (from its source tree, not installed)")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    socket: Annotated[
        str, typer.Option(envvar="NEXTHOP_SOCKET", help="The daemon's Unix socket.", metavar="PATH")
    ] = "/run/nexthop/nexthopd.sock",
    version: Annotated[  # noqa: ARG001, FBT002  (acts in its callback)
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Keep where the daemon listens for the command that follows."""
    context.obj = socket


@app.command()
def status(context: typer.Context, json: AsJson = False) -> None:  # noqa: FBT002
    """Show how the appliance does; the first line is the verdict, and anything but OK exits 1."""
    answer = _daemon(context).get("/v1/status")
    if json:
        _print_json(answer)
    else:
        from api import render  # noqa: PLC0415

        render.status(answer, time.time())
    if answer["verdict"]["level"] != "ok":
        raise typer.Exit(EXIT_FAILED)


@cidr_app.command("add")
def cidr_add(
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
    daemon = _daemon(context)
    asked = _given(via=via, snat=snat, comment=comment, mss=mss, probe=probe, when_down=when_down, hold_down=hold_down)
    code, answer = daemon.request("POST", "/v1/cidrs", {"cidr": cidr, **asked, **({"force": True} if force else {})})
    _warn(answer)
    _say(f"{answer['cidr']} via {answer['via']}: {'recorded' if code == 201 else 'was recorded before'}")
    carried = True
    if wait:
        answer, carried = _until_carried(daemon, answer, timeout)
    if json:
        _print_json(answer)
    elif carried and wait:
        typer.echo(f"{answer['cidr']} via {answer['via']}: carried")
    elif not wait:
        typer.echo(f"{answer['cidr']} via {answer['via']}: {answer['phase']}")
    if not carried:
        _say(
            f"error: {answer['cidr']} is recorded, and not carried after {timeout:g} s -> "
            "nexthopd goes on trying; see what it says: nexthop status"
        )
        raise typer.Exit(EXIT_FAILED)


@cidr_app.command("set")
def cidr_set(
    context: typer.Context,
    cidr: Annotated[str, typer.Argument(help="As `nexthop cidr ls` shows it.")],
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

    asked = _given(via=via, snat=snat, comment=comment, mss=mss, probe=probe, when_down=when_down, hold_down=hold_down)
    if not asked:
        _usage("nothing to change -> name at least one option: nexthop cidr set --help")
    body = {**asked, **({"force": True} if force else {})}
    _, answer = _daemon(context).request("PATCH", f"/v1/cidrs/{segment(cidr)}", body)
    _warn(answer)
    if json:
        _print_json(answer)
    else:
        typer.echo(f"{answer['cidr']}: " + ", ".join(f"{name} {answer[name]}" for name in asked))


@cidr_app.command("rm")
def cidr_rm(
    context: typer.Context,
    cidr: Annotated[str, typer.Argument(help="As `nexthop cidr ls` shows it.")],
    wait: Wait = True,  # noqa: FBT002
    timeout: Timeout = 10.0,
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Stop carrying CIDR: the cloud's route entry goes first, then the kernel's route."""
    from api.client import segment  # noqa: PLC0415

    daemon = _daemon(context)
    _, answer = daemon.request("DELETE", f"/v1/cidrs/{segment(cidr)}")
    _say(f"{answer['cidr']}: leaving")
    gone = wait and _until_gone(daemon, answer, timeout)
    if json:
        _print_json(answer | {"gone": gone})
    elif gone:
        typer.echo(f"{answer['cidr']}: gone")
    elif not wait:
        typer.echo(f"{answer['cidr']}: leaving")
    if wait and not gone:
        _say(
            f"error: {answer['cidr']} is not gone after {timeout:g} s -> "
            "nexthopd goes on trying; see what it says: nexthop status"
        )
        raise typer.Exit(EXIT_FAILED)


@cidr_app.command("adopt")
def cidr_adopt(
    context: typer.Context,
    cidr: Annotated[str, typer.Argument(help="A CIDR that was added, and that somebody else's entry blocks.")],
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Take over the route entry that somebody else has for CIDR, in place."""
    from api.client import segment  # noqa: PLC0415

    _, answer = _daemon(context).request("POST", f"/v1/cidrs/{segment(cidr)}/adopt")
    if json:
        _print_json(answer)
    else:
        typer.echo(f"{answer['cidr']}: adopted")


@stray_app.command("rm")
def stray_rm(
    context: typer.Context,
    cidr: Annotated[str, typer.Argument(help="As `nexthop status` names it.")],
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Remove a route entry of ours that nobody asked for."""
    from api.client import segment  # noqa: PLC0415

    _, answer = _daemon(context).request("DELETE", f"/v1/strays/{segment(cidr)}")
    if json:
        _print_json(answer)
    else:
        typer.echo(f"{answer['cidr']}: leaving")


@app.command()
def plan(context: typer.Context, json: AsJson = False) -> None:  # noqa: FBT002
    """Show what would change in the cloud; change nothing."""
    answer = _daemon(context).get("/v1/plan")
    if json:
        _print_json(answer)
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


@app.command()
def doctor(context: typer.Context, json: AsJson = False) -> None:  # noqa: FBT002
    """Check every prerequisite in the cloud, and say how to mend it; exits 1 where one fails."""
    answer = _daemon(context).get("/v1/doctor")
    if json:
        _print_json(answer)
    else:
        from api.render import clean  # noqa: PLC0415

        for each in answer["findings"]:
            fix = f" -> {each['fix']}" if each["fix"] and each["state"] != "ok" else ""
            typer.echo(clean(f"{each['state']:7} {each['code']}: {each['text']}{fix}"))
    if answer["verdict"] == "fail":
        raise typer.Exit(EXIT_FAILED)


@app.command("ram-policy")
def ram_policy(context: typer.Context) -> None:
    """Print the least that the instance's RAM role has to be allowed, as a policy document."""
    _print_json(_daemon(context).get("/v1/ram-policy"))


@cidr_app.command("ls")
def cidr_ls(context: typer.Context, json: AsJson = False) -> None:  # noqa: FBT002
    """List the CIDRs with the state of each layer."""
    answer = _daemon(context).get("/v1/cidrs")
    if json:
        _print_json(answer)
    else:
        from api import render  # noqa: PLC0415

        render.cidrs(answer)


@app.command()
def history(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="How many lines at most.", min=1, max=1000)] = 30,
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Show who changed what, and what was repaired, newest first."""
    answer = _daemon(context).get(f"/v1/history?limit={limit}")
    if json:
        _print_json(answer)
    else:
        from api import render  # noqa: PLC0415

        render.history(answer)


@app.command()
def restore(context: typer.Context, json: AsJson = False) -> None:  # noqa: FBT002
    """Put the last good backup in the place of a database that cannot be read."""
    _, answer = _daemon(context).request("POST", "/v1/restore")
    if json:
        _print_json(answer)
    else:
        aside = f"; the damaged one is {answer['damaged']}" if answer["damaged"] else ""
        typer.echo(f"restored {answer['cidrs']} CIDRs{aside}")


@app.command()
def purge(
    config: Annotated[Path, typer.Option(help="The daemon's configuration.")] = Path("/etc/nexthop/nexthop.toml"),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,  # noqa: FBT002
    keep_cloud: Annotated[  # noqa: FBT002
        bool, typer.Option("--keep-cloud", help="Leave the cloud's route entries: another appliance takes over.")
    ] = False,
) -> None:
    """Remove all that is ours from cloud and kernel, with nexthopd and every gtun stopped; the list of CIDRs stays."""
    if not yes:
        typer.confirm("No host will reach anything through this machine any more. Go on?", abort=True, err=True)
    from api import purge as purging  # noqa: PLC0415

    try:
        for line in purging.purge(config, cloud=not keep_cloud):
            typer.echo(line)
    except purging.CannotPurge as error:
        _say(f"error: {error}")
        raise typer.Exit(EXIT_FAILED) from None


@link_app.command("join")
def link_join(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What to call the link here: a-z, 0-9, '-', at most 11 letters.")],
    rest: Annotated[
        list[str] | None, typer.Argument(metavar="[-]", help="'-' for standard input, the default.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A file that holds the join token.", metavar="FILE")] = None,
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Join a gtund with the token that `gtund client add` printed; it is read from FILE or standard input."""
    if any(_TOKEN_PREFIX in text for text in [name, str(file), *(rest or [])]):
        _usage("a join token does not belong on the command line, where every user of this machine can read it -> "
               "give it by --file FILE or on standard input")  # fmt: skip
    if rest not in (None, [], ["-"]) or (rest and file):
        _usage("only a name is taken -> give the join token by --file FILE or on standard input")
    token = _read_token(file)
    _, answer = _daemon(context).request("POST", "/v1/links", {"name": name, "token": token})
    if json:
        _print_json(answer)
    else:
        typer.echo(f"{answer['name']}: joined {answer['server']}; it comes up within seconds: nexthop link ls")


@link_app.command("ls")
def link_ls(context: typer.Context, json: AsJson = False) -> None:  # noqa: FBT002
    """List the links and how they do."""
    answer = _daemon(context).get("/v1/links")
    if json:
        _print_json(answer)
    else:
        from api import render  # noqa: PLC0415

        render.links(answer, time.time())


@link_app.command("rm")
def link_rm(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="As `nexthop link ls` shows it.")],
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Leave a link and delete its key. Refused while a CIDR goes via it."""
    from api.client import segment  # noqa: PLC0415

    _daemon(context).request("DELETE", f"/v1/links/{segment(name)}")
    if json:
        _print_json({"name": name, "gone": True})
    else:
        typer.echo(f"{name}: gone")


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def _warn(answer: Mapping[str, Any]) -> None:
    for warning in answer["warnings"]:
        _say(f"warning: {warning['text']}" + (f" -> {warning['next_step']}" if warning["next_step"] else ""))


def _daemon(context: typer.Context) -> Daemon:
    from api.client import Daemon  # noqa: PLC0415

    return Daemon(str(context.obj))


def _read_token(file: Path | None) -> str:
    """Return the token; it may not be longer than any token is, so that a wrong file is not sent anywhere."""
    longest = 4096
    if file is not None and str(file) != "-":
        try:
            with file.open(encoding="utf-8", errors="replace") as source:
                text = source.read(longest + 1)
        except OSError as error:
            _say(f"error: cannot read {file}: {error.strerror} -> name a file that holds the join token")
            raise typer.Exit(EXIT_FAILED) from None
    elif sys.stdin.isatty():
        import getpass  # noqa: PLC0415

        text = getpass.getpass("Join token (not shown): ")
    else:
        text = sys.stdin.read(longest + 1)
    if not text.strip() or len(text) > longest:
        _say("error: there is no join token in what was given -> `gtund client add NAME` prints one")
        raise typer.Exit(EXIT_FAILED)
    return text.strip()


def _until_carried(daemon: Daemon, answer: dict[str, Any], timeout: float) -> tuple[dict[str, Any], bool]:
    """Follow a CIDR until every layer is ok, telling each change on stderr."""
    from api.client import segment  # noqa: PLC0415

    deadline = time.monotonic() + timeout
    told: dict[str, str] = {}
    while True:
        _tell(answer, told)
        # without a cloud its layer has nothing to wait for
        if all(layer["state"] == "ok" or layer["code"] == "no-cloud" for layer in answer["layers"].values()):
            return answer, True
        if time.monotonic() >= deadline:
            return answer, False
        time.sleep(_POLL_SECONDS)
        answer = daemon.get(f"/v1/cidrs/{segment(answer['cidr'])}")


def _until_gone(daemon: Daemon, answer: dict[str, Any], timeout: float) -> bool:
    from api.client import Refused, segment  # noqa: PLC0415

    deadline = time.monotonic() + timeout
    told: dict[str, str] = {}
    while True:
        _tell(answer, told)
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
        try:
            answer = daemon.get(f"/v1/cidrs/{segment(answer['cidr'])}")
        except Refused as error:
            if error.code == "cidr-unknown":
                return True
            raise


def _tell(answer: Mapping[str, Any], told: dict[str, str]) -> None:
    from api import render  # noqa: PLC0415

    for name in answer["layers"]:
        now = render.layer(answer, name)
        if told.get(name) != now:
            told[name] = now
            _say(f"  {name}: {now}")


def _print_json(answer: object) -> None:
    import json  # noqa: PLC0415

    typer.echo(json.dumps(answer, indent=2))


def _say(text: str) -> None:
    from api.render import clean  # noqa: PLC0415

    typer.echo(clean(text), err=True)


def _usage(text: str) -> NoReturn:
    _say(f"error: {text}")
    raise typer.Exit(EXIT_USAGE)


def main() -> None:
    """Run the command; every failure is one line per reason on stderr, and with --json its document on stdout."""
    try:
        app()
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except Exception as error:
        from api.client import Failed  # noqa: PLC0415

        if not isinstance(error, Failed):
            raise
        from api.render import reasons  # noqa: PLC0415

        if "--json" in sys.argv[1:]:
            _print_json(error.problem)
        for line in reasons(error.problem):
            _say(f"error: {line}")
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
