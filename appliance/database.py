"""The database as a file: copied while it is in use, asked for its schema's version, put back as it was.

For who changes releases. What is in it is the intents' (`appliance.intent`), and nothing here knows of that. Its
journal is a rollback journal (https://sqlite.org/fileformat.html, section 3), which belongs to the file that it lies
beside: a file that takes another's place must not find it there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def schema(path: Path) -> int:
    """Return the version of its schema; raise `sqlite3.Error` where it cannot be read."""
    with contextlib.closing(_open(path)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        return int(version)


def is_of(path: Path, version: int) -> bool:
    """Tell whether it has this schema; one that cannot be read has none."""
    try:
        return schema(path) == version
    except sqlite3.Error:
        return False


def copy(source: Path, target: Path) -> None:
    """Copy it, also while somebody writes to it; for nobody else to read. Raises `sqlite3.Error`, `OSError`."""
    target.unlink(missing_ok=True)
    with contextlib.closing(_open(source)) as one, contextlib.closing(sqlite3.connect(target)) as other:
        target.chmod(0o600)
        one.backup(other)


def restore(path: Path, copied: Path) -> None:
    """Put a copy in its place, as its owner's, while nobody works with it; what it replaces stays beside it."""
    owner = path.stat()
    fresh = path.with_name(f"{path.name}.restored")
    shutil.copyfile(copied, fresh)
    os.chown(fresh, owner.st_uid, owner.st_gid)
    fresh.chmod(owner.st_mode & 0o777)
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
    path.replace(path.with_name(f"{path.name}.upgraded"))
    fresh.replace(path)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
