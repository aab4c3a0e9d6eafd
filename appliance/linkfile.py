"""How a link's file is written: private from its first byte, whole or not at all, and on the disk before it counts."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


def text(section: str, values: Mapping[str, object]) -> str:
    """Return TOML of one table; values are texts, numbers, booleans, or lists of these."""
    # A JSON string is a TOML basic string, but for DEL, which json leaves as it is.
    lines = (f"{key} = {json.dumps(value).replace(chr(127), chr(92) + 'u007f')}" for key, value in values.items())
    return f"[{section}]\n" + "\n".join(lines) + "\n"


def write_new(path: Path, text: str) -> None:
    """Write a 0600 file that appears whole, or not at all, and only where there is none; on disk when this returns.

    Raises `FileExistsError`, or `OSError` where the disk refuses.
    """
    with _draft(path, text) as draft:
        os.link(draft, path)  # unlike a rename, refuses to replace


def replace(path: Path, text: str) -> None:
    """Write a 0600 file in place of the one that is there; a reader finds one or the other. Raises `OSError`."""
    with _draft(path, text) as draft:
        draft.replace(path)


def sync_directory(path: Path) -> None:
    """Have what was made or removed in a directory be so on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _draft(path: Path, text: str) -> Iterator[Path]:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)
