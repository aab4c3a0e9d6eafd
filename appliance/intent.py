"""What the operator asked for, on disk: the only durable state.

A change is acknowledged when it would survive a power cut, not before. SQLite with a rollback journal, since a WAL
database cannot be opened on a read-only file system (https://sqlite.org/wal.html#readonly), and synchronous EXTRA: with
FULL the journal's removal, which *is* the commit, may itself be lost (https://sqlite.org/pragma.html#pragma_synchronous).

One process writes, from its event loop's thread. Where the file cannot be read or written every method raises
`StoreUnavailable`, and the next call tries afresh: the disk may be back.

Each step of a CIDR's life is a conditional statement, so a step that was decided on yesterday's phase does nothing. The
last one names the record's revision, too: who saw the kernel without a CIDR says so from another process, and by the
time it is heard the CIDR may have been asked for and given back once more. A revision is the row of the line of history
that tells of the change, which no other change ever has.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final

from appliance import backup
from appliance.model import Bar, Intent, Network, Phase
from appliance.records import (
    SELECT,
    Event,
    describe,
    get_intent,
    insert_intent,
    migrate,
    note,
    read_intent,
    read_tokens,
)

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

_HISTORY: Final = "SELECT at, who, what, cidr, detail, id FROM history"
_BUSY: Final = 0.5  # seconds to wait for another process, such as a backup, to let go of the file


class StoreUnavailable(Exception):
    """The database cannot be read or written now; nothing was changed. Packets keep flowing meanwhile."""


class StoreReadable(Exception):
    """The database is in order: a restore would only lose what was written since the backup."""


class UnknownCidr(KeyError):
    """Nobody asked for this CIDR."""

    def __str__(self) -> str:
        return f"{self.args[0]} is not in the list"


class IntentStore:
    """The intents, each in its phase, and the history of changes."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._open: sqlite3.Connection | None = None
        self._trouble: str | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._rows: list[object] | None = None  # as read last, and what they said
        self._intents: tuple[Intent, ...] = ()
        self._barred: Mapping[Network, Bar] | None = None  # as on disk; this process alone writes it

    @property
    def path(self) -> Path:
        """Where the database lies."""
        return self._path

    @property
    def trouble(self) -> str | None:
        """Why the last attempt to write failed; None where it did not."""
        return self._trouble

    def check(self) -> bool:
        """Write what is there already; return whether that works, so that a disk which is back is noticed."""
        with contextlib.suppress(StoreUnavailable), self._writing() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            db.execute(f"PRAGMA user_version = {version}")
        return self._trouble is None

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
            rows = db.execute(SELECT).fetchall()
            if rows != self._rows:
                self._intents = ordered([read_intent(row) for row in rows])
                self._rows = rows
        return self._intents

    def get(self, network: Network) -> Intent | None:
        """Return the intent for exactly this network."""
        with self._reading() as db:
            return get_intent(db, network)

    def put(self, intent: Intent, *, who: str = "operator") -> bool:
        """Make it PRESENT, whatever it was before; return whether it was not.

        A PRESENT one takes the new via, snat and comment; one that is the same already is left alone, without a write.
        `created_at` is set here and stays as long as the record does.
        """
        with self._writing() as db:
            old = get_intent(db, intent.network)
            at = self._clock()
            new = replace(intent, phase=Phase.PRESENT, created_at=old.created_at if old else intent.created_at or at)
            if new == old:
                return False
            what = "added" if old is None else "changed" if old.phase is Phase.PRESENT else "revived"
            detail = describe(new, old if what == "changed" else None)
            row = note(db, Event(at, who, what, str(new.network), detail))
            insert_intent(db, replace(new, revision=row))
            db.execute("DELETE FROM released WHERE cidr = ?", (str(new.network),))
        self.changed()
        return what != "changed"

    def leave(self, network: Network, *, who: str = "operator") -> Intent:
        """Turn PRESENT into LEAVING and return the record as it is now; raise `UnknownCidr` where there is none."""
        with self._writing() as db:
            old = get_intent(db, network)
            if old is None:
                raise UnknownCidr(str(network))
            if old.phase is not Phase.PRESENT:
                return old
            left = replace(old, phase=Phase.LEAVING)
            left = _move(db, left, Event(self._clock(), who, "removed", str(network), ""))
        self.changed()
        return left

    def withdrawn(self, network: Network) -> bool:
        """Turn LEAVING into WITHDRAWN; return whether it was LEAVING. For `attract` alone."""
        with self._writing() as db:
            old = get_intent(db, network)
            if old is None or old.phase is not Phase.LEAVING:
                return False
            event = Event(self._clock(), "attract", "withdrawn", str(network), "the cloud sends it here no more")
            _move(db, replace(old, phase=Phase.WITHDRAWN), event)
        self.changed()
        return True

    def drop(self, network: Network, revision: int) -> bool:
        """Forget a WITHDRAWN one that is at this revision still; return whether it was. For `forward` alone.

        That it was here is remembered (`released`): should a request of ours still land, its entry is known as ours.
        """
        with self._writing() as db:
            old = get_intent(db, network)
            if old is None or old.phase is not Phase.WITHDRAWN or old.revision != revision:
                return False
            at = self._clock()
            db.execute("DELETE FROM intent WHERE cidr = ?", (str(network),))
            db.execute("INSERT OR REPLACE INTO released VALUES (?, ?)", (str(network), at))
            note(db, Event(at, "forward", "dropped", str(network), "the kernel carries it no more"))
        self.changed()
        return True

    def release(self, network: Network, *, who: str = "operator") -> None:
        """Say that an entry of ours for a CIDR that nobody asks for may go: what `attract` sees of it, it withdraws.

        For a CIDR that somebody does ask for this changes nothing: its record decides.
        """
        with self._writing() as db:
            at = self._clock()
            db.execute("INSERT OR REPLACE INTO released VALUES (?, ?)", (str(network), at))
            note(db, Event(at, who, "released", str(network), "an entry with our mark that nobody asked for"))
        self.changed()

    def released(self) -> frozenset[Network]:
        """Return the networks that were asked for once, were given back, and were not asked for since."""
        with self._reading() as db:
            return frozenset(ip_network(cidr) for (cidr,) in db.execute("SELECT cidr FROM released"))

    def barred(self) -> Mapping[Network, Bar]:
        """Return what is not to be carried, asked for or not."""
        with self._reading() as db:
            if self._barred is None:
                rows = db.execute("SELECT cidr, code, text FROM barred")
                self._barred = {ip_network(cidr): Bar(code, text) for cidr, code, text in rows}
        return self._barred

    def bar(self, found: Mapping[Network, Bar]) -> None:
        """Have just these not be carried. For `attract` alone, after a pass that saw no entry of ours for those new.

        The records stay as they are; for the kernel a barred one counts as WITHDRAWN, for as long as it is barred.
        """
        before = self.barred()
        if found == before:
            return
        with self._writing() as db:
            at = self._clock()
            db.execute("DELETE FROM barred")
            rows = [(str(network), why.code, why.text) for network, why in found.items()]
            db.executemany("INSERT INTO barred VALUES (?, ?, ?)", rows)
            for network in found.keys() - before.keys():
                note(db, Event(at, "attract", "barred", str(network), found[network].text))
            for network in before.keys() - found.keys():
                note(db, Event(at, "attract", "unbarred", str(network), "nothing is against it any more"))
        self._barred = dict(found)
        self.changed()

    def record(self, who: str, what: str, *, cidr: str = "", detail: str = "") -> None:
        """Write a line of history that goes with no change of intent, such as a repair."""
        with self._writing() as db:
            note(db, Event(self._clock(), who, what, cidr, detail))

    def history(self, limit: int = 100) -> tuple[Event, ...]:
        """Return the last `limit` lines of history, newest first."""
        with self._reading() as db:
            return tuple(Event(*row) for row in db.execute(f"{_HISTORY} ORDER BY id DESC LIMIT ?", (limit,)))

    def events(self, after: int, limit: int = 100) -> tuple[Event, ...]:
        """Return the lines that follow row `after`, at most `limit`, oldest first."""
        with self._reading() as db:
            rows = db.execute(f"{_HISTORY} WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
            return tuple(Event(*row) for row in rows)

    def last_row(self) -> int:
        """Return the row of the newest line, 0 where there is none."""
        with self._reading() as db:
            (row,) = db.execute("SELECT coalesce(max(id), 0) FROM history").fetchone()
            return int(row)

    def reading(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """Lend the connection to what else lies in this file; raise `StoreUnavailable`."""
        return self._reading()

    def writing(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """Lend the connection inside one transaction to what else lies in this file; raise `StoreUnavailable`."""
        return self._writing()

    def saved(self) -> backup.Saved:
        """Return all that a backup is to hold."""
        with self._reading() as db:
            return backup.Saved(self._clock(), self.all(), self.released(), read_tokens(db))

    def restore(self, saved: backup.Saved, *, who: str = "operator") -> Path | None:
        """Put what a backup holds in the place of a database that cannot be read, which is moved aside.

        Return where that is now, None where there was none. Raise `StoreReadable` where nothing is the matter.
        Rows of history, and so revisions, go on from the seconds since the epoch: those of the damaged file, which
        nobody can read, stay behind them.
        """
        try:
            self.all()
        except StoreUnavailable:
            pass
        else:
            raise StoreReadable(f"{self._path} can be read: nothing to restore")
        detail = f"{len(saved.intents)} CIDRs and {len(saved.tokens)} tokens from the backup"
        try:
            self.close()
            at = self._clock()
            aside = backup.rebuild(self._path, saved, Event(at, who, "restored", "", detail, int(at)))
            self._barred = None
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"{self._path}: {error}") from error
        self.changed()
        return aside

    def changed(self) -> None:
        """Say that something is to be read. For what else lies in this file, and for the methods above."""
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
        try:
            with self._reading() as db:
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                    db.execute("COMMIT")
                finally:
                    if db.in_transaction:
                        with contextlib.suppress(sqlite3.Error):
                            db.execute("ROLLBACK")
        except StoreUnavailable as error:
            self._trouble = str(error)
            raise
        self._trouble = None


def _connect(path: Path) -> sqlite3.Connection:
    if not _holds_anything(path) and backup.path_of(path).exists():
        # An empty list would take every CIDR out of the kernel while the cloud still sends it here.
        raise sqlite3.DatabaseError("it is gone, and its backup is not: `nexthop restore` puts that in its place")
    db = sqlite3.connect(path, timeout=_BUSY, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous = EXTRA")
        migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def _holds_anything(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _move(db: sqlite3.Connection, moved: Intent, event: Event) -> Intent:
    moved = replace(moved, revision=note(db, event))
    insert_intent(db, moved)
    return moved


def ordered(intents: Iterable[Intent]) -> tuple[Intent, ...]:
    """Return them in numerical order of their networks."""
    return tuple(sorted(intents, key=lambda intent: _order(intent.network)))


def _order(network: Network) -> tuple[int, int, int]:
    return (network.version, int(network.network_address), network.prefixlen)
