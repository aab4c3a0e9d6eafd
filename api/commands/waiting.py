"""Follows a CIDR until the daemon has done what was asked, telling each step on stderr as it happens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from api.commands.shared import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from api.client import Daemon

_POLL_SECONDS: Final = 0.2


def until_carried(daemon: Daemon, answer: dict[str, Any], timeout: float) -> tuple[dict[str, Any], bool]:
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


def until_gone(daemon: Daemon, answer: dict[str, Any], timeout: float) -> bool:
    """Follow a CIDR until it is in no list any more."""
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
            say(f"  {name}: {now}")
