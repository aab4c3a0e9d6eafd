"""What the operator asked for, on disk: the only durable state.

A change is acknowledged when it would survive a power cut, not before. SQLite with a rollback journal, since a WAL
database cannot be opened on a read-only file system (https://sqlite.org/wal.html#readonly), and synchronous EXTRA: with
FULL the journal's removal, which *is* the commit, may itself be lost (https://sqlite.org/pragma.html#pragma_synchronous).

One process writes, from its event loop's thread. Where the file cannot be read or written every method raises
`StoreUnavailable`, and the next call tries afresh: the disk may be back.

Each step of a CIDR's life is a conditional statement, so a step that was decided on yesterday's phase does nothing.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from appliance.model import Intent, Network, Phase

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

# One entry per schema version: what leads there from the version before. Never edit one that was released.
MIGRATIONS: Final = (
    """
    CREATE TABLE intent (
        cidr TEXT PRIMARY KEY,
        via TEXT NOT NULL,
        snat INTEGER NOT NULL CHECK (snat IN (0, 1)),
        comment TEXT NOT NULL,
        phase TEXT NOT NULL CHECK (phase IN ('present', 'leaving', 'withdrawn')),
        created_at REAL NOT NULL
    ) STRICT;
    CREATE TABLE history (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        who TEXT NOT NULL,
        what TEXT NOT NULL,
        cidr TEXT NOT NULL,
        detail TEXT NOT NULL
    ) STRICT;
    CREATE TABLE released (cidr TEXT PRIMARY KEY, at REAL NOT NULL) STRICT;
    """,
)

_KEPT: Final = 10_000  # lines of history
_BUSY: Final = 0.5  # seconds to wait for another process, such as a backup, to let go of the file


class StoreUnavailable(Exception):
    """The database cannot be read or written now; nothing was changed. Packets keep flowing meanwhile."""


class UnknownCidr(KeyError):
    """Nobody asked for this CIDR."""

    def __str__(self) -> str:
        return f"{self.args[0]} is not in the list"


@dataclass(frozen=True, slots=True)
class Event:
    """One line of history. `at`: seconds since the epoch; `cidr` is empty where the event is not about one."""

    at: float
    who: str
    what: str
    cidr: str
    detail: str


class IntentStore:
    """The intents, each in its phase, and the history of changes."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._open: sqlite3.Connection | None = None
        self._callbacks: list[Callable[[], None]] = []

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each change that is on disk. It says only that there is something to read."""
        self._callbacks.append(callback)

    def close(self) -> None:
        """Let go of the file."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def all(self) -> tuple[Intent, ...]:
        """Return every intent, in numerical order of their networks."""
        with self._reading() as db:
            rows = db.execute("SELECT cidr, via, snat, comment, phase, created_at FROM intent").fetchall()
            intents = [_intent(row) for row in rows]
        return tuple(sorted(intents, key=lambda intent: _order(intent.network)))

    def get(self, network: Network) -> Intent | None:
        """Return the intent for exactly this network."""
        with self._reading() as db:
            return _get(db, network)

    def put(self, intent: Intent, *, who: str = "operator") -> bool:
        """Make it PRESENT, whatever it was before; return whether it was not.

        A PRESENT one takes the new via, snat and comment; one that is the same already is left alone, without a write.
        `created_at` is set here and stays as long as the record does.
        """
        with self._writing() as db:
            old = _get(db, intent.network)
            at = self._clock()
            new = replace(intent, phase=Phase.PRESENT, created_at=old.created_at if old else intent.created_at or at)
            if new == old:
                return False
            what = "added" if old is None else "changed" if old.phase is Phase.PRESENT else "revived"
            db.execute(
                "INSERT OR REPLACE INTO intent VALUES (?, ?, ?, ?, ?, ?)",
                (str(new.network), new.via, int(new.snat), new.comment, new.phase.value, new.created_at),
            )
            db.execute("DELETE FROM released WHERE cidr = ?", (str(new.network),))
            detail = f"via {new.via}, {'masqueraded' if new.snat else 'not masqueraded'}"
            _note(db, Event(at, who, what, str(new.network), detail))
        self._changed()
        return what != "changed"

    def leave(self, network: Network, *, who: str = "operator") -> Intent:
        """Turn PRESENT into LEAVING and return the record as it is now; raise `UnknownCidr` where there is none."""
        with self._writing() as db:
            old = _get(db, network)
            if old is None:
                raise UnknownCidr(str(network))
            if old.phase is not Phase.PRESENT:
                return old
            _move(db, network, Phase.LEAVING)
            _note(db, Event(self._clock(), who, "removed", str(network), ""))
        self._changed()
        return replace(old, phase=Phase.LEAVING)

    def withdrawn(self, network: Network) -> bool:
        """Turn LEAVING into WITHDRAWN; return whether it was LEAVING. For `attract` alone."""
        with self._writing() as db:
            old = _get(db, network)
            if old is None or old.phase is not Phase.LEAVING:
                return False
            _move(db, network, Phase.WITHDRAWN)
            _note(db, Event(self._clock(), "attract", "withdrawn", str(network), "the cloud sends it here no more"))
        self._changed()
        return True

    def drop(self, network: Network) -> bool:
        """Forget a WITHDRAWN one; return whether it was WITHDRAWN. For `forward` alone.

        That it was here is remembered (`released`): should a request of ours still land, its entry is known as ours.
        """
        with self._writing() as db:
            old = _get(db, network)
            if old is None or old.phase is not Phase.WITHDRAWN:
                return False
            at = self._clock()
            db.execute("DELETE FROM intent WHERE cidr = ?", (str(network),))
            db.execute("INSERT OR REPLACE INTO released VALUES (?, ?)", (str(network), at))
            _note(db, Event(at, "forward", "dropped", str(network), "the kernel carries it no more"))
        self._changed()
        return True

    def release(self, network: Network, *, who: str = "operator") -> None:
        """Say that an entry of ours for a CIDR that nobody asks for may go: what `attract` sees of it, it withdraws.

        For a CIDR that somebody does ask for this changes nothing: its record decides.
        """
        with self._writing() as db:
            at = self._clock()
            db.execute("INSERT OR REPLACE INTO released VALUES (?, ?)", (str(network), at))
            _note(db, Event(at, who, "released", str(network), "an entry with our mark that nobody asked for"))
        self._changed()

    def released(self) -> frozenset[Network]:
        """Return the networks that were asked for once, were given back, and were not asked for since."""
        with self._reading() as db:
            return frozenset(ip_network(cidr) for (cidr,) in db.execute("SELECT cidr FROM released"))

    def record(self, who: str, what: str, *, cidr: str = "", detail: str = "") -> None:
        """Write a line of history that goes with no change of intent, such as a repair."""
        with self._writing() as db:
            _note(db, Event(self._clock(), who, what, cidr, detail))

    def history(self, limit: int = 100) -> tuple[Event, ...]:
        """Return the last `limit` lines of history, newest first."""
        with self._reading() as db:
            rows = db.execute("SELECT at, who, what, cidr, detail FROM history ORDER BY id DESC LIMIT ?", (limit,))
            return tuple(Event(*row) for row in rows)

    def _changed(self) -> None:
        for callback in self._callbacks:
            callback()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection; any complaint of the database becomes `StoreUnavailable` and closes it."""
        try:
            if self._open is None:
                self._open = _connect(self._path)
            yield self._open
        except sqlite3.ProgrammingError:  # ours, not the disk's: another thread, or a wrong statement
            raise
        except (sqlite3.Error, OSError) as error:
            with contextlib.suppress(sqlite3.Error):
                self.close()
            self._open = None
            raise StoreUnavailable(f"{self._path}: {error}") from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection inside one transaction, which is on disk when the block is left without an error."""
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        db.execute("ROLLBACK")


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_BUSY, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous = EXTRA")
        _migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def _migrate(db: sqlite3.Connection) -> None:
    """Bring the schema up to date in one transaction: killed half way, the file is as it was."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        text = f"its schema version {version} is newer than this program, which knows {len(MIGRATIONS)}: upgrade again"
        raise sqlite3.DatabaseError(text)
    if version == len(MIGRATIONS):
        return
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("BEGIN IMMEDIATE")
    for script in MIGRATIONS[version:]:
        for statement in filter(str.strip, script.split(";")):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    db.execute("COMMIT")
    log.info("database schema brought from version %s to %s", version, len(MIGRATIONS))


def _get(db: sqlite3.Connection, network: Network) -> Intent | None:
    query = "SELECT cidr, via, snat, comment, phase, created_at FROM intent WHERE cidr = ?"
    row = db.execute(query, (str(network),)).fetchone()
    return None if row is None else _intent(row)


def _intent(row: tuple[str, str, int, str, str, float]) -> Intent:
    cidr, via, snat, comment, phase, created_at = row
    try:
        return Intent(ip_network(cidr), via, bool(snat), comment, Phase(phase), created_at)
    except ValueError as error:  # only a torn or edited file holds such a thing
        raise sqlite3.DatabaseError(f"a damaged record: {error}") from error


def _move(db: sqlite3.Connection, network: Network, phase: Phase) -> None:
    db.execute("UPDATE intent SET phase = ? WHERE cidr = ?", (phase.value, str(network)))


def _note(db: sqlite3.Connection, event: Event) -> None:
    cursor = db.execute(
        "INSERT INTO history (at, who, what, cidr, detail) VALUES (?, ?, ?, ?, ?)",
        (event.at, event.who, event.what, event.cidr, event.detail),
    )
    db.execute("DELETE FROM history WHERE id <= ?", ((cursor.lastrowid or 0) - _KEPT,))


def _order(network: Network) -> tuple[int, int, int]:
    return (network.version, int(network.network_address), network.prefixlen)
