"""Repair and removal: restore a backup, purge all that is ours."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from api.commands.shared import AsJson, fail, print_json, reach, say


def restore(context: typer.Context, json: AsJson = False) -> None:  # noqa: FBT002
    """Put the last good backup in the place of a database that cannot be read."""
    _, answer = reach(context).request("POST", "/v1/restore")
    if json:
        print_json(answer)
    else:
        aside = f"; the damaged one is {answer['damaged']}" if answer["damaged"] else ""
        typer.echo(f"restored {answer['cidrs']} CIDRs and {answer['tokens']} tokens{aside}")
        if answer["tokens"]:
            say("see whether a token came back that had been taken away: nexthop token ls")


def support_bundle(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="Where to; nexthop-support-TIME.tar.gz here by default.", metavar="[FILE]")
    ] = None,
) -> None:
    """Collect what somebody else needs to help, without keys, tokens or signatures."""
    raw = reach(context).fetch("/v1/support-bundle")
    path = file or Path(f"nexthop-support-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")
    try:
        with path.open("xb") as out:
            path.chmod(0o600)
            out.write(raw)
    except FileExistsError:
        fail(f"{path} is there already -> name another file")
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror} -> name a file that you may write")
    typer.echo(str(path))


def purge(
    config: Annotated[Path, typer.Option(help="The daemon's configuration.")] = Path("/etc/nexthop/nexthop.toml"),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,  # noqa: FBT002
    keep_cloud: Annotated[  # noqa: FBT002
        bool, typer.Option("--keep-cloud", help="Leave the cloud's route entries: another appliance takes over.")
    ] = False,
) -> None:
    """Remove all that is ours from cloud and kernel, with nexthopd and every gtun stopped; the list of CIDRs stays.

    The machine's own settings stay as they are, net.ipv4.ip_forward = 1 among them: others may rely on them by now.
    """
    if not yes:
        typer.confirm("No host will reach anything through this machine any more. Go on?", abort=True, err=True)
    from api import purge as purging  # noqa: PLC0415

    try:
        for line in purging.purge(config, cloud=not keep_cloud):
            typer.echo(line)
    except purging.CannotPurge as error:
        fail(str(error))
