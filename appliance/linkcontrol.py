"""What a running gtun says of its link, over its control socket: never remembered, and believed only as far as it fits.

One question a connection: nothing to be told the state, a word to have something done. The answer is one JSON object.
A gtun that is not there, does not answer, or says what nobody understands is a link that is down, for that reason.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

from appliance.status import LinkStatus

if TYPE_CHECKING:
    from pathlib import Path

_ANSWER_SECONDS: Final = 1.0
_RELOAD_SECONDS: Final = 15.0
_ANSWER_BYTES: Final = 64 * 1024
_STATES: Final = ("up", "connecting", "down")  # no set: what is asked for may be unhashable


async def status(name: str, device: str, path: Path) -> LinkStatus:
    """Ask the link's gtun, for at most a second; one that does not answer sensibly is "down", "not-running"."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            answer = await _ask(path)
    except TimeoutError:
        return _silent(name, device, "its gtun runs, and does not answer")
    except (FileNotFoundError, ConnectionRefusedError):  # never started, or ended and left its socket
        return _silent(name, device, "no gtun runs for it")
    except OSError as error:
        return _silent(name, device, f"its gtun cannot be asked: {error.strerror or error}")
    try:
        return _understood(name, device, json.loads(answer))
    except (ValueError, RecursionError):
        return _silent(name, device, f"what answers on {path} is no gtun that we understand")


async def reload(path: Path, text: str) -> str:
    """Have the link's gtun go by this text of its file; return why it will not, "" if it does, or none is there.

    The text is told, since a gtun may have a copy of the file from when it began (systemd.exec(5), LoadCredential).
    """
    try:
        async with asyncio.timeout(_RELOAD_SECONDS):
            answer = json.loads(await _ask(path, f"reload {len(text.encode())}\n{text}"))
    except (OSError, TimeoutError, ValueError):
        return ""  # the next gtun reads the file
    return str(answer.get("error", "")) if isinstance(answer, dict) else ""


async def _ask(path: Path, command: str = "") -> bytes:
    """Read a control socket to its end, or to more than any gtun says; without a command it tells the state."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(command.encode())
        writer.write_eof()
        answer = b""
        while len(answer) <= _ANSWER_BYTES and (more := await reader.read(_ANSWER_BYTES)):
            answer += more
        return answer
    finally:
        writer.close()


def _understood(name: str, device: str, answer: object) -> LinkStatus:
    """Take from the answer what has the right type; raise `ValueError` where even the state is missing."""
    if not isinstance(answer, dict) or answer.get("state") not in _STATES:
        raise ValueError("not a gtun's answer")

    def text(key: str) -> str:
        value = answer.get(key)
        return value if isinstance(value, str) else ""

    def number(key: str) -> float | None:
        value = answer.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    counters, pid, unit_bytes = (answer.get(key) for key in ("counters", "pid", "unit_bytes"))
    return LinkStatus(
        name=name,
        device=device,
        state=str(answer["state"]),
        code=text("code"),
        reason=text("reason"),
        server=text("server"),
        address=text("address"),
        peer=text("peer"),
        pid=pid if isinstance(pid, int) else None,
        since=number("since"),
        retry_at=number("retry_at"),
        rtt_ms=number("rtt_ms"),
        channel=text("channel"),
        loss=number("loss"),
        unit_bytes=unit_bytes if isinstance(unit_bytes, int) else None,
        counters={str(key): value for key, value in counters.items() if isinstance(value, int)}
        if isinstance(counters, dict)
        else {},
    )


def _silent(name: str, device: str, reason: str) -> LinkStatus:
    return LinkStatus(name, device, "down", "not-running", reason)
