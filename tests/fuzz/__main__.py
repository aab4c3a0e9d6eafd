"""Coverage-guided fuzzing of every target in one process: `python -m tests.fuzz --minutes 60 --corpus DIR`.

The first byte of an input says which target it is for, so that libFuzzer shares its time among all of them. It stops at
the first crash, or when the process grows beyond what it needs; the input that did it is then in DIR, and
belongs into `test_targets` once it is understood. Needs atheris (`./run fuzz` installs it): tests alone do not.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import atheris

with atheris.instrument_imports(include=["appliance.tunnel"]):
    from tests.fuzz import seeds, targets

_MOST_MEBIBYTES: Final = 1024
"""libFuzzer keeps its corpus in memory; ours would grow without end."""

_TELL_EVERY: Final = 60.0


class Fuzz:
    """Counts what was run."""

    def __init__(self) -> None:
        self._names = tuple(targets.TARGETS)
        self._counts: Counter[str] = Counter()
        self._tell_at = time.monotonic() + _TELL_EVERY

    def one(self, data: bytes) -> None:
        """Run one input."""
        if not data:
            return
        name = self._names[data[0] % len(self._names)]
        self._counts[name] += 1
        targets.TARGETS[name](data[1:])
        if (now := time.monotonic()) >= self._tell_at:
            self._tell_at = now + _TELL_EVERY
            self.tell()

    def tell(self) -> None:
        """Say how many inputs each target had, and the most memory so far."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        counts = ", ".join(f"{name} {self._counts[name]}" for name in self._names)
        sys.stderr.write(f"fuzz: {self._counts.total()} executions, peak {peak} MiB: {counts}\n")
        sys.stderr.flush()


def main() -> None:
    """Fuzz for so long, from the seeds and from what earlier runs left in the corpus."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz everything that strangers send.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--corpus", type=Path, required=True, help="directory that keeps inputs from run to run")
    options = parser.parse_args()
    options.corpus.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(targets.TARGETS):
        for which, seed in enumerate(seeds.of(name)):
            (options.corpus / f"seed-{name}-{which}").write_bytes(bytes([number]) + seed)
    atheris.Setup(
        [
            sys.argv[0],
            str(options.corpus),
            f"-max_total_time={int(options.minutes * 60)}",
            "-max_len=6000",
            "-timeout=1200",  # of the clock, which goes on while the process is stopped
            f"-rss_limit_mb={_MOST_MEBIBYTES}",
            f"-artifact_prefix={options.corpus}/",
            "-print_final_stats=1",
            "-verbosity=1",
        ],
        Fuzz().one,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
