"""How intents, history and tokens lie in the database: the schema, its versions, and rows to values and back."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import astuple, dataclass, field
from functools import lru_cache
from ipaddress import ip_network
from typing import Final

from appliance.kernel.state import one
from appliance.model import Intent, Network, Phase
from appliance.options import WhenDown, mss_text, parse_mss, parse_target

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
    """
    ALTER TABLE intent ADD COLUMN mss TEXT NOT NULL DEFAULT 'auto';
    ALTER TABLE intent ADD COLUMN probe TEXT NOT NULL DEFAULT '';
    ALTER TABLE intent ADD COLUMN when_down TEXT NOT NULL DEFAULT 'keep' CHECK (when_down IN ('keep', 'withdraw'));
    ALTER TABLE intent ADD COLUMN hold_down REAL NOT NULL DEFAULT 30;
    """,
    """
    CREATE TABLE token (
        name TEXT PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        scope TEXT NOT NULL CHECK (scope IN ('read', 'write')),
        created_at REAL NOT NULL,
        expires_at REAL,
        last_used REAL
    ) STRICT;
    CREATE TABLE answer (
        key TEXT PRIMARY KEY,
        request BLOB NOT NULL,
        at REAL NOT NULL,
        status INTEGER NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    """,
    "ALTER TABLE intent ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;",
    "CREATE TABLE barred (cidr TEXT PRIMARY KEY, code TEXT NOT NULL, text TEXT NOT NULL) STRICT;",
)
SELECT: Final = (
    "SELECT cidr, via, snat, comment, phase, created_at, mss, probe, when_down, hold_down, revision FROM intent"
)
# As nexthop-forward sees them: what is barred is to go from the kernel like what the cloud has let go of.
SELECT_CARRIED: Final = SELECT.replace(
    "phase", "CASE WHEN cidr IN (SELECT cidr FROM barred) THEN 'withdrawn' ELSE phase END"
)
_INSERT: Final = (
    "INSERT OR REPLACE INTO intent"
    " (cidr, via, snat, comment, phase, created_at, mss, probe, when_down, hold_down, revision)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ALL_TOKENS: Final = "SELECT name, digest, scope, created_at, expires_at, last_used FROM token ORDER BY name"
_HISTORY_KEPT: Final = 10_000  # lines


@dataclass(frozen=True, slots=True)
class Event:
    """One line of history. `at`: seconds since the epoch; `cidr` is empty where the event is not about one.

    `row` grows by one from line to line and stays what it is; 0 as long as the line is not written.
    """

    at: float
    who: str
    what: str
    cidr: str
    detail: str
    row: int = 0


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token as it lies there: `digest` is its SHA-256; times are in seconds since the epoch, None for never."""

    name: str
    digest: bytes = field(repr=False)
    scope: str
    created_at: float
    expires_at: float | None
    last_used: float | None


def migrate(db: sqlite3.Connection) -> None:
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


def get_intent(db: sqlite3.Connection, network: Network) -> Intent | None:
    """Return the record of exactly this network."""
    row = db.execute(f"{SELECT} WHERE cidr = ?", (str(network),)).fetchone()
    return None if row is None else read_intent(row)


def insert_intent(db: sqlite3.Connection, intent: Intent) -> None:
    """Write a record, in the place of one of the same network."""
    values = (
        *(str(intent.network), intent.via, int(intent.snat), intent.comment, intent.phase.value, intent.created_at),
        *(mss_text(intent.mss), str(intent.probe or ""), intent.when_down.value, intent.hold_down, intent.revision),
    )
    db.execute(_INSERT, values)


def read_tokens(db: sqlite3.Connection) -> tuple[TokenRecord, ...]:
    """Return every token, by name."""
    return tuple(TokenRecord(*row) for row in db.execute(_ALL_TOKENS))


def insert_token(db: sqlite3.Connection, token: TokenRecord) -> None:
    """Write a token; raise `sqlite3.IntegrityError` where one of that name is there."""
    columns = "name, digest, scope, created_at, expires_at, last_used"
    db.execute(f"INSERT INTO token ({columns}) VALUES (?, ?, ?, ?, ?, ?)", astuple(token))  # noqa: S608


def note(db: sqlite3.Connection, event: Event) -> int:
    """Write a line of history, and forget the oldest one where there are too many.

    Return its row, which is the next one unless the event has one.
    """
    cursor = db.execute(
        "INSERT INTO history (id, at, who, what, cidr, detail) VALUES (?, ?, ?, ?, ?, ?)",
        (event.row or None, event.at, event.who, event.what, event.cidr, event.detail),
    )
    row = cursor.lastrowid or 0
    db.execute("DELETE FROM history WHERE id <= ?", (row - _HISTORY_KEPT,))
    return row


def describe(new: Intent, old: Intent | None) -> str:
    """Return for people what is asked for; of a change, what is new."""
    options = {
        "via": f"via {new.via}",
        "snat": "masqueraded" if new.snat else "not masqueraded",
        "mss": f"MSS {mss_text(new.mss)}",
        "probe": f"probe {new.probe or 'off'}",
        "when_down": f"{new.when_down.value} when the link is down",
        "hold_down": f"hold-down {new.hold_down:g} s",
        "comment": f"comment {new.comment!r}",
    }
    usual = old or Intent(new.network, "", created_at=new.created_at)
    names = [name for name in options if getattr(new, name) != getattr(usual, name) or (old is None and name == "snat")]
    return ", ".join(options[name] for name in names)


@lru_cache(maxsize=1 << 15)
def read_intent(row: tuple[str, str, int, str, str, float, str, str, str, float, int]) -> Intent:
    """Return what a row says; raise `sqlite3.DatabaseError` where it is damaged."""
    cidr, via, snat, comment, phase, created_at, mss, probe, when_down, hold_down, revision = row
    try:
        return Intent(
            *(one(ip_network(cidr)), via, bool(snat), comment, Phase(phase), created_at),
            *(parse_mss(mss), parse_target(probe), WhenDown(when_down), hold_down, revision),
        )
    except ValueError as error:  # only a torn or edited file holds such a thing
        raise sqlite3.DatabaseError(f"a damaged record: {error}") from error
