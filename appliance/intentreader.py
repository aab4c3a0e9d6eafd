"""The intents as who must not change them sees them: nexthop-forward, in a process without the right to write.

What is barred (`appliance.intent`) is shown as WITHDRAWN: the kernel lets go of it, and no record is dropped for that.

Opened read-only, each time anew: the file may have been restored from its backup, or the disk have come back. A journal
that a dead writer left cannot be played back from here (SQLITE_READONLY_ROLLBACK,
https://sqlite.org/rescode.html#readonly_rollback): until a nexthopd has done that nothing is known, and nothing is
changed in the kernel.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Final

from appliance.intent import StoreUnavailable, ordered
from appliance.records import MIGRATIONS, SELECT_CARRIED, read_intent

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.model import Intent

_BUSY: Final = 0.5  # seconds to wait for the writer


class IntentReader:
    """Reads what `appliance.intent.IntentStore` keeps."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[object] = []  # as read last, and what they said
        self._intents: tuple[Intent, ...] = ()

    def all(self) -> tuple[Intent, ...]:
        """Return every intent, in numerical order of their networks; raise `StoreUnavailable`."""
        try:
            place = f"{self._path.absolute().as_uri()}?mode=ro"
            with contextlib.closing(sqlite3.connect(place, uri=True, timeout=_BUSY, isolation_level=None)) as db:
                (version,) = db.execute("PRAGMA user_version").fetchone()
                if version != len(MIGRATIONS):
                    # 0: made a moment ago, or torn; an empty list would take every CIDR out of the kernel
                    text = f"its schema version is {version}, not {len(MIGRATIONS)}: nexthopd brings it up to date"
                    raise sqlite3.DatabaseError(text)
                rows = db.execute(SELECT_CARRIED).fetchall()
                if rows != self._rows:
                    self._intents, self._rows = ordered([read_intent(row) for row in rows]), rows
                return self._intents
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error
