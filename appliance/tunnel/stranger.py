"""A stranger's task: it has a socket and a place at the gate, and both are given back however it ends. Thin.

By asyncio, and not by the task itself: one that is cut in the moment in which it was accepted never begins, and then no
`finally` of its own runs.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine

from .gate import Gate, Place


def receive(
    group: asyncio.TaskGroup, gate: Gate, place: Place, sock: socket.socket, work: Coroutine[None, None, None]
) -> None:
    """See a stranger through by `work`, which ends early when the gate needs its place for somebody else."""

    def ended(_done: asyncio.Task[None]) -> None:
        gate.leave(place)
        sock.close()

    task = group.create_task(work)
    task.add_done_callback(ended)
    place.cut = task.cancel
