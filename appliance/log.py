"""How nexthopd and nexthop-forward write their logs: an event is one line, with ``extra`` behind a constant text."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from typing import Final

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}

_KEPT: Final = 2000  # lines
_LONGEST: Final = 2000  # characters of each, a trace and all


class OneLine(logging.Formatter):
    """Text first, then ``key=value``; a line break inside a message cannot forge a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line; a traceback, which only a mistake of ours has, follows on lines of its own."""
        trace, record.exc_info, record.exc_text = record.exc_info, None, None
        fields = "".join(f" {key}={value}" for key, value in vars(record).items() if key not in _STANDARD)
        line = "".join(letter if letter.isprintable() else " " for letter in super().format(record) + fields)
        record.exc_info = trace
        return f"{line}\n{self.formatException(trace)}" if trace else line


class Ring(logging.Handler):
    """Keeps the last lines, for a support bundle."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=_KEPT)
        self.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(self.format(record)[:_LONGEST])


def install(*, verbose: bool) -> deque[str]:
    """Send every log to stderr; under systemd without the time, which the journal has. Return its last lines."""
    ring = Ring()
    handler = logging.StreamHandler(sys.stderr)
    when = "" if os.environ.get("JOURNAL_STREAM") else "%(asctime)s "
    handler.setFormatter(OneLine(f"{when}%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler, ring], force=True)
    for ours in ("api", "appliance", "cloud"):  # libraries put every netlink message and URL into theirs
        logging.getLogger(ours).setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of each request that is no HTTP
    return ring.lines
