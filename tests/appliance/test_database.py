"""The database as a file: a copy is whole while somebody writes, and what is put back is its owner's."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from appliance import database


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "nexthop.db"
    with contextlib.closing(sqlite3.connect(found)) as db, db:
        db.executescript("CREATE TABLE t (x); INSERT INTO t VALUES (1); PRAGMA user_version = 3;")
    return found


def rows(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT x FROM t").fetchall()


def test_a_copy_holds_what_was_committed_and_only_its_owner_reads_it(path, tmp_path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES (2)")
        database.copy(path, tmp_path / "copy")
        writer.execute("COMMIT")
    assert rows(tmp_path / "copy") == [(1,)]
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    assert database.schema(tmp_path / "copy") == 3


def test_what_is_put_back_has_its_mode_and_meets_no_journal_of_another(path, tmp_path) -> None:
    path.chmod(0o640)
    database.copy(path, tmp_path / "copy")
    path.write_bytes(b"torn")
    journal = tmp_path / "nexthop.db-journal"
    journal.write_bytes(b"of what was torn")
    assert not database.is_of(path, 3)
    database.restore(path, tmp_path / "copy")
    assert database.is_of(path, 3)
    assert rows(path) == [(1,)]
    assert path.stat().st_mode & 0o777 == 0o640
    assert not journal.exists()
    assert (tmp_path / "nexthop.db.upgraded").read_bytes() == b"torn"
