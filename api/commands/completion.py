"""`nexthop completion`: what makes a shell complete commands and options."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer


class Shell(Enum):
    """The shells that typer can complete for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="Your shell.")]) -> None:
    """Print a script; in bash: nexthop completion bash > /etc/bash_completion.d/nexthop."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # noqa: PLC0415

    typer.echo(get_completion_script(prog_name="nexthop", complete_var="_NEXTHOP_COMPLETE", shell=shell.value))
