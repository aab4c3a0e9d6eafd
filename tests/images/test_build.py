"""The build's steps: what they say when they fail, and what is left of one that is interrupted."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.images import build
from tests.lab import ground

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_step_that_fails_shows_the_end_of_what_it_said() -> None:
    with pytest.raises(build.NotBuilt, match=r"sh -c exited with 3:\nno space left"):
        build.run("sh", "-c", "echo no space left >&2; exit 3")


@pytest.mark.parametrize("heeds", [True, False])
def test_an_interrupted_step_may_clean_up_and_leaves_no_child(tmp_path: Path, monkeypatch, heeds: bool) -> None:
    """As Packer does, whose machine would run on; who does not heed the signal is killed."""
    monkeypatch.setattr(build, "_ENDING", 20.0 if heeds else 0.5)
    child, cleaned = tmp_path / "child", tmp_path / "cleaned"
    does = f"touch {cleaned}; kill $!; exit 1" if heeds else ""
    script = f"trap '{does}' INT; sleep 600 & echo $! >{child}.new; mv {child}.new {child}; while :; do wait; done"

    def interrupt() -> None:
        until(child.exists)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        build.run("sh", "-c", script)
    thread.join()
    assert cleaned.exists() == heeds
    until(lambda: not ground.running(int(child.read_text())))
