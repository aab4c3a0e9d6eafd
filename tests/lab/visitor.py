"""Somebody who uses the pods: `python -m tests.lab.visitor ADDRESS...`, on a host of the lab, until the lab ends.

Fetches from one pod after the other, slower and faster in turns, so that a chart of it has a shape. A pod that does not
answer is no reason to end: that is what there may be to see.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import math
import sys
import time

PERIOD = 90.0  # seconds from one busy moment to the next
BUSIEST = 0.05  # seconds between two visits
QUIETEST = 0.8


def pause(now: float) -> float:
    """Return the seconds until the next visit."""
    ease = 0.5 + 0.5 * math.sin(2 * math.pi * now / PERIOD)
    return BUSIEST + (QUIETEST - BUSIEST) * ease**2


def visit(address: str, path: str) -> None:
    """Fetch one page, or find that nobody answers."""
    connection = http.client.HTTPConnection(address, timeout=2)
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        connection.getresponse().read()
    connection.close()


def main() -> None:
    """Visit for as long as there is a lab."""
    for number, address in enumerate(itertools.cycle(sys.argv[1:])):
        visit(address, "/blob" if number % 3 else "/")
        time.sleep(pause(time.monotonic()))


if __name__ == "__main__":
    main()
