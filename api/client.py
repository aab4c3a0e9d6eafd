"""What the command line knows of HTTP: one request over the daemon's Unix socket, one answer or one named error.

Failed
+- Refused       the daemon said no, with a problem document
+- NotRunning    nobody listens on the socket
+- NotAllowed    the socket is not ours to open
+- NoAnswer      a daemon is there and does not answer as it should
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping


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
    """Nobody listens on the socket."""


class NotAllowed(Failed):
    """Only others may open the socket."""


class NoAnswer(Failed):
    """The daemon broke off, took too long, or is not nexthopd."""


class Daemon:
    """nexthopd behind its socket at `path`; `timeout` in seconds is for each step of one request."""

    def __init__(self, path: str, timeout: float = 30.0) -> None:
        self.path = path
        self.timeout = timeout

    def get(self, target: str) -> Any:
        """Return what is at `target`."""
        return self.request("GET", target)[1]

    def request(self, method: str, target: str, body: object = None) -> tuple[int, Any]:
        """Return the status and the decoded body (None where there is none); raise `Failed`."""
        connection = _UnixConnection(self.path, self.timeout)
        headers = {"Accept": "application/json"}
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, target, payload, headers)
            response = connection.getresponse()
            status, raw = response.status, response.read()
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning(_not_running(self.path)) from None
        except PermissionError:
            raise NotAllowed(_not_allowed(self.path)) from None
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(_no_answer(self.path, type(error).__name__)) from None
        finally:
            connection.close()
        return status, _decoded(self.path, status, raw)


def segment(text: str) -> str:
    """Return `text` as part of a path, so that nothing in it is taken for another part or a query."""
    return quote(text, safe="/:")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket; the Host header is "localhost"."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _decoded(path: str, status: int, raw: bytes) -> Any:
    try:
        answer = json.loads(raw) if raw else None
    except ValueError:
        raise NoAnswer(_no_answer(path, f"HTTP {status} without JSON")) from None
    if status >= 400:
        if not isinstance(answer, dict) or "code" not in answer:
            raise NoAnswer(_no_answer(path, f"HTTP {status} without a reason"))
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


def _not_running(path: str) -> dict[str, Any]:
    return _local(
        "not-running",
        f"nexthopd does not run: nobody listens on {path}",
        "start it: systemctl start nexthopd; why it stopped: journalctl -u nexthopd -n 20",
    )


def _not_allowed(path: str) -> dict[str, Any]:
    return _local(
        "not-allowed",
        f"you may not use {path}: it is for root and the group nexthop",
        "use sudo, or join the group (usermod -aG nexthop YOU) and log in again",
    )


def _no_answer(path: str, what: str) -> dict[str, Any]:
    return _local(
        "no-answer",
        f"nexthopd at {path} did not answer as it should ({what})",
        "look into its log: journalctl -u nexthopd -n 20",
    )
