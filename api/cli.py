"""`nexthop`: the operator's command. A client of the daemon's API and nothing more, so it imports nothing heavy.

What was asked for goes to stdout, everything else to stderr; without a terminal it is plain text. Exit codes: 0 done
(for `status`: the verdict is OK), 1 refused or failed, 2 wrong usage. `nexthop --help` must answer at once: rich, HTTP
and JSON are imported where they are used, and the daemon's own packages never.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from api.commands import cidr, completion, events, link, look, machine, stray, token, upkeep
from api.commands.shared import EXIT_FAILED, Where, print_json, say

app = typer.Typer(
    name="nexthop",
    help="Steer the VPC next-hop appliance on this machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(look.status)
app.add_typer(cidr.app, name="cidr")
app.add_typer(link.app, name="link")
app.command()(look.plan)
app.command()(look.explain)
app.command()(look.routes)
app.command()(events.events)
app.command()(look.doctor)
app.add_typer(token.app, name="token")
app.add_typer(stray.app, name="stray")
app.command("ram-policy")(look.ram_policy)
app.command("support-bundle")(upkeep.support_bundle)
app.command()(upkeep.restore)
app.command()(completion.completion)
app.command()(upkeep.purge)
app.command()(machine.setup)
app.command(hidden=True)(machine.firstboot)
app.command()(machine.upgrade)


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
    url: Annotated[
        str,
        typer.Option(
            envvar="NEXTHOP_URL",
            help="A daemon elsewhere; its token comes from the environment, NEXTHOP_TOKEN.",
            metavar="https://HOST:PORT",
        ),
    ] = "",
    fingerprint: Annotated[
        str,
        typer.Option(
            envvar="NEXTHOP_FINGERPRINT",
            help="The SHA-256 of that daemon's certificate, where no authority vouches for it.",
            metavar="HEX",
        ),
    ] = "",
    version: Annotated[  # noqa: ARG001, FBT002  (acts in its callback)
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Keep where the daemon listens for the command that follows."""
    context.obj = Where(socket, url, os.environ.get("NEXTHOP_TOKEN", ""), fingerprint)


def main() -> None:
    """Run the command; every failure is one line per reason on stderr, and with --json its document on stdout."""
    if "_NEXTHOP_COMPLETE" in os.environ:  # a shell that `nexthop completion` has set up asks
        from typer.completion import completion_init  # type: ignore[attr-defined]  # noqa: PLC0415

        completion_init()
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
            print_json(error.problem)
        for line in reasons(error.problem):
            say(f"error: {line}")
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
