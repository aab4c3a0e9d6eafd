"""`./run image`: build the local image, boot it in the lab, and tell what it does there.

    python -m tests.images              build it, then tell the story
    python -m tests.images --built      tell the story of the image that was built last
    python -m tests.images --keep       leave the machine up at the end, until Ctrl-C

Whatever ends it, it leaves nothing behind but dist/ and the base disk in its cache.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time

from tests.images import build
from tests.images.machine import Machine
from tests.images.story import Story
from tests.lab import ground
from tests.lab.demo import guarded
from tests.lab.lab import Lab

_WIDTH = 62


def say(text: str = "", end: str = "\n") -> None:
    """Print at once."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def tell(*, built: bool, keep: bool) -> int:
    """Build and tell; return the exit status."""
    begin = time.monotonic()
    if not built:
        try:
            for name, figure in build.build():
                say(f"{name} ".ljust(_WIDTH, ".") + f" {figure}")
        except build.NotBuilt as error:
            say(f"FAILED\n\n{error}")
            return 1
    with Lab.open() as lab, Machine.plugged_in(lab, build.IMAGE, build.DIST / "vm") as vm:
        steps = list(Story(lab, vm).steps())
        for number, (name, check) in enumerate(steps, 1):
            say(f"[{number:2}/{len(steps)}] {name} ".ljust(_WIDTH, "."), end=" ")
            try:
                say(check())
            except Exception as error:
                say(f"FAILED\n\n{type(error).__name__}: {error}\n\n{vm.state()}")
                vm.save(build.DIST / "failed")
                say(f"\nstep {number} failed: {name}\nits journal, console and logs are in {build.DIST}/failed")
                return 1
        say(f"\nall {len(steps)} held, {time.monotonic() - begin:.0f} s")
        if keep:
            say(f"look around: {vm.door()}")
            signal.pause()
    return 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="./run image", description="Build the local image and boot it.")
    parser.add_argument("--built", action="store_true", help="take the image that was built last")
    parser.add_argument("--keep", action="store_true", help="leave the machine up at the end, until Ctrl-C")
    options = parser.parse_args()
    ground.reap_dead()
    return guarded(lambda: tell(built=options.built, keep=options.keep))


if __name__ == "__main__":
    sys.exit(main())
