"""`nexthop link`: the tunnels. A join token is read from a file or standard input, never from the command line."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from api.commands.shared import AsJson, fail, group, print_json, reach, take_away, tell, usage

app = group("The tunnels to where those CIDRs are.")

Rest = Annotated[list[str] | None, typer.Argument(metavar="[-]", help="'-' for standard input, the default.")]
File = Annotated[Path | None, typer.Option(help="A file that holds the token.", metavar="FILE")]

_TOKEN_PREFIX = "nexthop1_"  # noqa: S105  (appliance.tunnel.token, which would cost an import of hashlib and more)


@app.command("join")
def join(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What to call the link here: a-z, 0-9, '-', at most 11 letters.")],
    rest: Rest = None,
    file: File = None,
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Join a gtund with the token that `gtund client add` printed; it is read from FILE or standard input."""
    token = _token(name, rest, file)
    _, answer = reach(context).request("POST", "/v1/links", {"name": name, "token": token})
    tell(answer, f"{answer['name']}: joined {answer['server']}; it comes up within seconds: nexthop link ls", json=json)


@app.command("rotate")
def rotate(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="As `nexthop link ls` shows it.")],
    rest: Rest = None,
    file: File = None,
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Give a link another key, with the token that `gtund client rotate` printed. Connections through it live on."""
    from api.client import segment  # noqa: PLC0415

    token = _token(name, rest, file)
    _, answer = reach(context).request("PUT", f"/v1/links/{segment(name)}/key", {"token": token})
    line = f"{answer['name']}: has another key at {answer['server']}; the old one is good for nothing now"
    tell(answer, line, json=json)


def _token(name: str, rest: list[str] | None, file: Path | None) -> str:
    """Return the token from where it may come from."""
    if any(_TOKEN_PREFIX in text for text in [name, str(file), *(rest or [])]):
        usage("a join token does not belong on the command line, where every user of this machine can read it -> "
               "give it by --file FILE or on standard input")  # fmt: skip
    if rest not in (None, [], ["-"]) or (rest and file):
        usage("only a name is taken -> give the join token by --file FILE or on standard input")
    return _read_token(file)


@app.command("ls")
def ls(context: typer.Context, json: AsJson = False) -> None:  # noqa: FBT002
    """List the links and how they do."""
    answer = reach(context).get("/v1/links")
    if json:
        print_json(answer)
    else:
        from api import render  # noqa: PLC0415

        render.links(answer, time.time())


@app.command("rm")
def rm(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="As `nexthop link ls` shows it.")],
    json: AsJson = False,  # noqa: FBT002
) -> None:
    """Leave a link and delete its key. Refused while a CIDR goes via it."""
    take_away(context, "links", name, json=json)


def _read_token(file: Path | None) -> str:
    """Return the token; it may not be longer than any token is, so that a wrong file is not sent anywhere."""
    longest = 4096
    if file is not None and str(file) != "-":
        try:
            with file.open(encoding="utf-8", errors="replace") as source:
                text = source.read(longest + 1)
        except OSError as error:
            fail(f"cannot read {file}: {error.strerror} -> name a file that holds the join token")
    elif sys.stdin.isatty():
        import getpass  # noqa: PLC0415

        text = getpass.getpass("Join token (not shown): ")
    else:
        text = sys.stdin.read(longest + 1)
    if not text.strip() or len(text) > longest:
        fail("there is no join token in what was given -> `gtund client add NAME` prints one")
    return text.strip()
