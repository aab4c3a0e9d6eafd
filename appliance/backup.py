"""A copy of the intents and tokens beside the database, for the day on which that cannot be read.

One JSON file with its own checksum, replaced whole; the one before it is kept. It is written a moment after a change,
in a thread: the database alone is what an acknowledgement rests on. Of a token there is no more than the hash that the
database has, so whoever reads the file can use none; history and kept answers are not in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final, Protocol

from appliance.model import Intent, Network, Phase
from appliance.options import WhenDown, mss_text, parse_mss, parse_target
from appliance.records import TokenRecord, insert_intent, insert_token, migrate, note

if TYPE_CHECKING:
    from pathlib import Path

    from appliance.records import Event

log = logging.getLogger(__name__)

_SETTLE: Final = 1.0  # seconds; a burst of changes is one backup
_CHECK: Final = 2.0  # seconds between looks whether the disk is back
_FORMAT: Final = 1


class BadBackup(ValueError):
    """There is no backup, or it is damaged; the message says which."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a backup holds. `at`: seconds since the epoch."""

    at: float
    intents: tuple[Intent, ...]
    released: frozenset[Network]
    tokens: tuple[TokenRecord, ...] = ()


def path_of(database: Path) -> Path:
    """Return where the backup of this database lies."""
    return database.with_name(f"{database.name}.backup")


def encode(saved: Saved) -> str:
    """Return the text of the file: a line of checksum, then the content."""
    content = json.dumps(
        {
            "format": _FORMAT,
            "at": saved.at,
            "intents": [_record(intent) for intent in saved.intents],
            "released": sorted(map(str, saved.released)),
            "tokens": [asdict(token) | {"digest": token.digest.hex()} for token in saved.tokens],
        },
        indent=1,
    )
    return f"{_digest(content)}\n{content}\n"


def decode(text: str) -> Saved:
    """Read it back; raise `BadBackup`."""
    digest, _, content = text.partition("\n")
    content = content.removesuffix("\n")
    if digest != _digest(content):
        raise BadBackup("its checksum does not fit: it is damaged")
    try:
        found = json.loads(content)
        if found["format"] != _FORMAT:
            raise BadBackup(f"its format is {found['format']}, and this program knows {_FORMAT}")
        intents = tuple(_intent(record) for record in found["intents"])
        tokens = tuple(_token(record) for record in found.get("tokens", ()))  # older backups hold none
        return Saved(found["at"], intents, frozenset(ip_network(each) for each in found["released"]), tokens)
    except (KeyError, TypeError, ValueError) as error:
        raise BadBackup(f"it cannot be understood: {error}") from None


def load(database: Path) -> Saved:
    """Return the last good backup of this database; raise `BadBackup` where neither of the two is one."""
    last = path_of(database)
    problems = []
    for path in (last, _older(last)):
        try:
            return decode(path.read_text(encoding="utf-8"))
        except (BadBackup, OSError, UnicodeDecodeError) as error:
            problems.append(f"{path}: {error}")
    raise BadBackup("; ".join(problems))


def save(database: Path, saved: Saved) -> None:
    """Write it, on disk when this returns; raise `OSError`."""
    last = path_of(database)
    fresh = last.with_name(f"{last.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(encode(saved))
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileNotFoundError):
        last.replace(_older(last))
    fresh.replace(last)
    sync_directory(last.parent)


def sync_directory(directory: Path) -> None:
    """Have the names in it on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rebuild(database: Path, saved: Saved, event: Event) -> Path | None:
    """Put a new database that holds this, and the event, in the place of one that nobody has open.

    Return where the old one is now, None where there was none. Raise `sqlite3.Error` or `OSError`.
    """
    aside = None
    if database.exists():
        aside = database.with_name(f"{database.name}.damaged-{int(event.at)}")
        database.rename(aside)
    journal = database.with_name(f"{database.name}-journal")
    journal.unlink(missing_ok=True)  # it belongs to the damaged one, and would be played back into the new one
    made = database.with_name(f"{database.name}.new")
    made.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(made, isolation_level=None)) as db:
        migrate(db)
        db.execute("PRAGMA synchronous = EXTRA")
        db.execute("BEGIN IMMEDIATE")
        row = note(db, event)
        for intent in saved.intents:
            insert_intent(db, replace(intent, revision=row))
        db.executemany("INSERT INTO released VALUES (?, ?)", [(str(net), saved.at) for net in saved.released])
        for token in saved.tokens:
            insert_token(db, token)
        db.execute("COMMIT")
    made.rename(database)
    sync_directory(database.parent)
    return aside


class Source(Protocol):
    """What this needs of `appliance.intent.IntentStore`."""

    def saved(self) -> Saved:
        """Return all that a backup is to hold."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why it could not be written; None where it could."""
        ...

    def check(self) -> bool:
        """Try to write; return whether that works."""
        ...

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back after a change."""
        ...


async def keep(
    store: Source,
    database: Path,
    trouble: type[Exception],
    *,
    settle: float = _SETTLE,
    again: float = _CHECK,
) -> None:
    """Write a backup after each change, until cancelled. `trouble`: what the store raises when it cannot be read.

    One that fails is tried again after `again` seconds, and so is a store that cannot be written.
    """
    failure = ""
    changed = asyncio.Event()
    store.on_change(changed.set)
    changed.set()  # what is there may be newer than the last backup
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CHECK):
                await changed.wait()
        if store.trouble is not None and store.check():
            log.info("the database can be written again")
        if not changed.is_set():
            continue
        await asyncio.sleep(settle)
        changed.clear()
        try:
            await asyncio.to_thread(save, database, store.saved())
        except (trouble, OSError) as error:
            if str(error) != failure:
                log.warning("no backup could be written: %s", error)
            failure = str(error)
            changed.set()  # what it would have held is still to be saved
            await asyncio.sleep(again)
        else:
            failure = ""


def _older(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _record(intent: Intent) -> dict[str, object]:
    return {
        "cidr": str(intent.network),
        "via": intent.via,
        "snat": intent.snat,
        "comment": intent.comment,
        "phase": intent.phase.value,
        "created_at": intent.created_at,
        "mss": mss_text(intent.mss),
        "probe": str(intent.probe or ""),
        "when_down": intent.when_down.value,
        "hold_down": intent.hold_down,
    }


def _token(record: dict[str, object]) -> TokenRecord:
    scope, expires, used = record["scope"], record["expires_at"], record["last_used"]
    if scope not in ("read", "write"):
        raise ValueError(f"{scope!r} is no scope of a token")
    return TokenRecord(
        str(record["name"]),
        bytes.fromhex(str(record["digest"])),
        str(scope),
        float(str(record["created_at"])),
        None if expires is None else float(str(expires)),
        None if used is None else float(str(used)),
    )


def _intent(record: dict[str, object]) -> Intent:
    return Intent(
        ip_network(str(record["cidr"])),
        str(record["via"]),
        bool(record["snat"]),
        str(record["comment"]),
        Phase(record["phase"]),
        float(str(record["created_at"])),
        parse_mss(str(record["mss"])),
        parse_target(str(record["probe"])),
        WhenDown(record["when_down"]),
        float(str(record["hold_down"])),
    )
