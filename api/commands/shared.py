"""What every command shares: how it reaches the daemon, how it speaks, and how it ends.

What was asked for goes to stdout, everything else to stderr. Exit codes: `EXIT_DONE` (for `status` and `doctor`: all is
well), `EXIT_FAILED` where the daemon refused or something is wrong, `EXIT_USAGE` where the command itself is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from api.client import Daemon

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2

AsJson = Annotated[bool, typer.Option("--json", help="Print the daemon's answer as JSON.")]


def group(help_text: str) -> typer.Typer:
    """Return an empty group of commands."""
    return typer.Typer(help=help_text, no_args_is_help=True, rich_markup_mode=None)


@dataclass(frozen=True, slots=True)
class Where:
    """What the root's options say of the daemon: its socket, or, where `url` is given, how to reach it elsewhere."""

    socket: str
    url: str = ""
    token: str = field(default="", repr=False)
    fingerprint: str = ""


def reach(context: typer.Context) -> Daemon:
    """Return the daemon that the root's options name."""
    from api.client import Daemon  # noqa: PLC0415
    from api.transport import BadAddress, remote  # noqa: PLC0415

    where: Where = context.obj
    if not where.url:
        return Daemon(where.socket)
    try:
        return Daemon(remote(where.url, where.token, where.fingerprint))
    except BadAddress as error:
        usage(str(error))


def print_json(answer: object) -> None:
    """Print a document to stdout."""
    import json  # noqa: PLC0415

    typer.echo(json.dumps(answer, indent=2))


def tell(answer: object, line: str, *, json: bool) -> None:
    """Print to stdout what was asked for: the document, or the line that says it."""
    if json:
        print_json(answer)
    else:
        typer.echo(line)


def take_away(context: typer.Context, what: str, name: str, *, json: bool) -> None:
    """Remove one of /v1/WHAT by its name, and tell."""
    from api.client import segment  # noqa: PLC0415

    reach(context).request("DELETE", f"/v1/{what}/{segment(name)}")
    tell({"name": name, "gone": True}, f"{name}: gone", json=json)


def say(text: str) -> None:
    """Print a line to stderr, without anything that could steer a terminal."""
    from api.render import clean  # noqa: PLC0415

    typer.echo(clean(text), err=True)


def warn(answer: Mapping[str, Any]) -> None:
    """Tell the warnings that came with an answer."""
    for warning in answer["warnings"]:
        say(f"warning: {warning['text']}" + (f" -> {warning['next_step']}" if warning["next_step"] else ""))


def fail(text: str) -> NoReturn:
    """End with what went wrong, and what to do."""
    say(f"error: {text}")
    raise typer.Exit(EXIT_FAILED)


def usage(text: str) -> NoReturn:
    """End with what is wrong with the command line, and how to write it."""
    say(f"error: {text}")
    raise typer.Exit(EXIT_USAGE)
