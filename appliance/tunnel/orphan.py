"""A data plane whose parent is gone ends by itself; one that cannot, since it hangs, holds its device for ever.

So whoever finds the device busy looks for such a process and ends it. A worker's command line names its parent, and the
kernel gives an orphan another one (proc(5), `PPid` in status); the descriptor of a TUN tells which device it holds
(drivers/net/tun.c, tun_chr_show_fdinfo). A worker that has its parent is never touched.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Final

WORKER: Final = f"{__package__}.worker"


def end(device: str) -> list[int]:
    """Kill the orphans that hold `device`; return their process ids. A process that is not ours to kill stays."""
    ended = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and _orphan_with(process, device):
            with contextlib.suppress(OSError):
                descriptor = os.pidfd_open(int(process.name))
                try:  # the number may have been given to another process since we looked; a descriptor stays true
                    if _orphan_with(process, device):
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                        ended.append(int(process.name))
                finally:
                    os.close(descriptor)
    return ended


def _orphan_with(process: Path, device: str) -> bool:
    try:
        words = (process / "cmdline").read_text(errors="replace").split("\0")
        if WORKER not in words[:-3] or _parent(process) == words[-2]:
            return False
        return any(f"iff:\t{device}\n" in info.read_text() for info in (process / "fdinfo").iterdir())
    except OSError:
        return False  # it ended meanwhile


def _parent(process: Path) -> str:
    status = (process / "status").read_text(errors="replace").splitlines()
    return next((line.split()[1] for line in status if line.startswith("PPid:")), "")
