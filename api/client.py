"""What the command line knows of HTTP: one request to a daemon, one answer or one named error.

Failed
+- Refused       the daemon said no, with a problem document
+- NotRunning    nobody listens there
+- NotAllowed    the socket is not ours to open
+- NotTrusted    whoever listens there cannot show that it is the daemon that is meant
+- NoAnswer      a daemon is there and does not answer as it should
"""

from __future__ import annotations

import http.client
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from api import transport
from api.transport import Local, Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Failed(Exception):
    """A request came to nothing; `problem` is the document that says why (one of ours where the daemon gave none)."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(str(problem.get("detail", "")))
        self.problem = dict(problem)

    @property
    def code(self) -> str:
        """Return the stable code of the problem."""
        return str(self.problem.get("code", ""))


class Refused(Failed):
    """The daemon said no."""


class NotRunning(Failed):
    """Nobody listens there."""


class NotAllowed(Failed):
    """Only others may open the socket."""


class NotTrusted(Failed):
    """Not the daemon that is meant."""


class NoAnswer(Failed):
    """The daemon broke off, took too long, or is not nexthopd."""


class Daemon:
    """nexthopd at `place` (or behind the socket at that path); `timeout` in seconds is for each step of one request."""

    def __init__(self, place: Place | str, timeout: float = 30.0) -> None:
        self.place = Local(place) if isinstance(place, str) else place
        self.timeout = timeout

    def get(self, target: str) -> Any:
        """Return what is at `target`."""
        return self.request("GET", target)[1]

    def request(
        self, method: str, target: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Return the status and the decoded body (None where there is none); raise `Failed`."""
        given = {"Accept": "application/json", **(headers or {})}
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            given["Content-Type"] = "application/json"
        with self._answer(method, target, payload, given, self.timeout) as response:
            status, raw = response.status, response.read()
        return status, _decoded(self.place, status, raw)

    def fetch(self, target: str) -> bytes:
        """Return what is at `target` as it comes; raise `Failed`."""
        with self._answer("GET", target, None, {"Accept": "*/*"}, self.timeout) as response:
            status, raw = response.status, response.read()
        if status >= 400:
            _decoded(self.place, status, raw)
        return raw

    def lines(self, target: str, accept: str, headers: Mapping[str, str], silence: float) -> Iterator[str]:
        """Yield the lines of an answer that does not end; raise `NoAnswer` after `silence` seconds without one."""
        with self._answer("GET", target, None, {"Accept": accept, **headers}, silence) as response:
            if response.status >= 400:
                _decoded(self.place, response.status, response.read())
            while line := response.readline():
                yield line.decode(errors="replace").rstrip("\r\n")

    @contextmanager
    def _answer(
        self, method: str, target: str, payload: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self.place.connect(timeout)
        try:
            connection.request(method, target, payload, {**headers, **self.place.headers()})
            yield connection.getresponse()
        except transport.NotTrusted as error:
            raise NotTrusted(_not_trusted(self.place, str(error))) from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning(_not_running(self.place)) from None
        except PermissionError:
            raise NotAllowed(_not_allowed(self.place)) from None
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(_no_answer(self.place, type(error).__name__)) from None
        finally:
            connection.close()


def segment(text: str) -> str:
    """Return `text` as part of a path, so that nothing in it is taken for another part or a query."""
    return quote(text, safe="/:")


def _decoded(place: Place, status: int, raw: bytes) -> Any:
    try:
        answer = json.loads(raw) if raw else None
    except ValueError:
        raise NoAnswer(_no_answer(place, f"HTTP {status} without JSON")) from None
    if status >= 400:
        if not isinstance(answer, dict) or "code" not in answer:
            raise NoAnswer(_no_answer(place, f"HTTP {status} without a reason"))
        raise Refused(answer)
    return answer


def _local(code: str, detail: str, next_step: str) -> dict[str, Any]:
    return {
        "type": f"urn:nexthop:problem:{code}",
        "title": detail,
        "detail": detail,
        "code": code,
        "reasons": [{"code": code, "text": detail, "next_step": next_step}],
    }


def _not_running(place: Place) -> dict[str, Any]:
    if isinstance(place, Local):
        step = "start it: systemctl start nexthopd; why it stopped: journalctl -u nexthopd -n 20"
    else:
        step = "look on that machine: systemctl status nexthopd, and [api] listen in nexthop.toml"
    return _local("not-running", f"nexthopd does not run: nobody listens on {place}", step)


def _not_allowed(place: Place) -> dict[str, Any]:
    return _local(
        "not-allowed",
        f"you may not use {place}: it is for root and the group nexthop",
        "use sudo, or join the group (usermod -aG nexthop YOU) and log in again",
    )


def _not_trusted(place: Place, why: str) -> dict[str, Any]:
    return _local(
        "not-trusted",
        f"{place} is not trusted: {why}",
        "`nexthop status` on the appliance tells its fingerprint: give that by --fingerprint or NEXTHOP_FINGERPRINT",
    )


def _no_answer(place: Place, what: str) -> dict[str, Any]:
    return _local(
        "no-answer",
        f"nexthopd at {place} did not answer as it should ({what})",
        "look into its log: journalctl -u nexthopd -n 20",
    )
