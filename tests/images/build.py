"""The local image: base disk, wheelhouse, and what Packer makes of them, all below DIST but for the base disk.

The base disk depends only on images/base.sh and images/packages, so it is kept for the next time, outside of the tree:
in NEXTHOP_CACHE, else ~/.cache/nexthop.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.images.search import search

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
DIST: Final = ROOT / "dist"
IMAGE: Final = DIST / "image" / "nexthop.qcow2"
WHEELHOUSE: Final = DIST / "wheelhouse"
_PASSWORD: Final = "NEXTHOP_BUILD_PASSWORD"
_ENDING: Final = 30.0  # seconds for a step to clean up when it is interrupted


class NotBuilt(Exception):
    """A step of the build failed; the message is the end of what it printed."""


def build() -> Iterator[tuple[str, str]]:
    """Build everything; yield each step's name and figure."""
    DIST.mkdir(exist_ok=True)
    base = cache() / f"base-{_digest('images/base.sh', 'images/packages')}.qcow2"
    if base.exists():
        yield "base disk", "from the cache"
    else:
        yield "base disk", _timed(lambda: run("sh", "images/base.sh", str(base)))
    yield "wheelhouse", _timed(lambda: run("sh", "images/wheelhouse.sh", sys.executable, str(WHEELHOUSE)))
    password = secrets.token_urlsafe(24)
    yield "packer build", _timed(lambda: packer(base, password))
    yield "no key, token, history or machine id is in it", _timed(lambda: look_inside(password))
    yield "size on disk", f"{IMAGE.stat().st_size / 1e6:.0f} MB compressed, {_size(IMAGE) / 1e6:.0f} MB as a disk"


def cache() -> Path:
    """Return where base disks are kept."""
    path = Path(os.environ.get("NEXTHOP_CACHE") or Path.home() / ".cache" / "nexthop")
    path.mkdir(parents=True, exist_ok=True)
    return path


def packer(base: Path, password: str) -> None:
    """Let Packer make the image. The password lives for the build alone: the last step locks it."""
    seed = DIST / "seed"
    shutil.rmtree(seed, ignore_errors=True)
    seed.mkdir()
    (seed / "meta-data").write_text("instance-id: build\n")
    (seed / "user-data").write_text(
        "#cloud-config\n"
        + json.dumps(
            {
                "disable_root": False,
                "ssh_pwauth": True,
                "chpasswd": {"expire": False, "list": f"root:{password}"},
                "write_files": [
                    {"path": "/etc/ssh/sshd_config.d/00-build.conf", "content": "PermitRootLogin yes\n"},
                ],
            }
        )
    )
    shutil.rmtree(IMAGE.parent, ignore_errors=True)
    try:
        run(
            *("packer", "build", "-only=qemu", "-color=false", "-var", f"local_base={base}", "packer.json"),
            **{_PASSWORD: password, **dummies()},
        )
    finally:
        shutil.rmtree(seed)


def look_inside(password: str) -> None:
    """Search the image, before anything has run from it; raise `NotBuilt` where it holds what it must not."""
    raw = DIST / "raw"
    try:
        run("qemu-img", "convert", "-O", "raw", str(IMAGE), str(raw))
        found = list(search(raw, password))
    finally:
        raw.unlink(missing_ok=True)
    if found:
        raise NotBuilt(f"the image holds {', '.join(found)}")


def dummies() -> dict[str, str]:
    """Return credentials that open nothing: Packer wants some for every builder, also for those that it skips."""
    return {"ALICLOUD_ACCESS_KEY": "LTAI-no-such-key-00000", "ALICLOUD_SECRET_KEY": "no-such-secret-0000000000"}


def previous(out: Path) -> tuple[str, Path]:
    """Build the wheel of the last commit whose wheel is another one than the image's; return the commit and its path.

    A wheel follows from its tree, byte for byte, so commits that changed no code are passed over.
    """
    ours = next(WHEELHOUSE.glob("nexthop-*.whl")).read_bytes()
    code = ("api", "appliance", "cloud", "pyproject.toml")
    for commit in run("git", "log", "-5", "--format=%h", "--", *code).split():
        built = wheel(commit, out / commit)
        if built.read_bytes() != ours:
            return commit, built
    raise NotBuilt("the last five commits all make the wheel that is in the image")


def wheel(commit: str, out: Path) -> Path:
    """Build the wheel of a commit; return its path."""
    tree = out / "tree"
    tree.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive, check=True)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(tree))
    shutil.rmtree(tree)
    (built,) = out.glob("*.whl")
    return built


def run(*argv: str, **environment: str) -> str:
    """Run a step to its end and return what it printed; raise `NotBuilt`. What ends us ends it and its children."""
    process = subprocess.Popen(
        argv,
        cwd=ROOT,
        env={**os.environ, "PACKER_CACHE_DIR": str(DIST / "packer_cache"), "CHECKPOINT_DISABLE": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate()
    except BaseException:
        with contextlib.suppress(subprocess.TimeoutExpired, ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)  # Packer ends its machine and removes what it made
            process.communicate(timeout=_ENDING)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode:
        raise NotBuilt(f"{' '.join(argv[:2])} exited with {process.returncode}:\n" + said[-4000:])
    return said


def _timed(step: Callable[[], object]) -> str:
    begin = time.monotonic()
    step()
    return f"{time.monotonic() - begin:.0f} s"


def _digest(*files: str) -> str:
    return hashlib.sha256(b"\0".join((ROOT / file).read_bytes() for file in files)).hexdigest()[:12]


def _size(image: Path) -> int:
    """Return how much of the disk is in use, uncompressed."""
    mapped = json.loads(run("qemu-img", "map", "--output=json", str(image)))
    return sum(int(part["length"]) for part in mapped if part["data"] and not part["zero"])
