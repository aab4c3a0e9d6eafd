from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.intent import IntentStore, StoreUnavailable
from appliance.intentreader import IntentReader
from appliance.model import Bar, Intent, Phase
from tests.appliance.fakes import POD, SERVICE


@pytest.fixture
def store(tmp_path: Path) -> Iterator[IntentStore]:
    with closing(IntentStore(tmp_path / "nexthop.db", clock=lambda: 5.0)) as made:
        yield made


def test_it_reads_what_the_store_holds_as_it_changes(store: IntentStore) -> None:
    reader = IntentReader(store.path)
    store.put(Intent(SERVICE, "hk"))
    store.put(Intent(POD, "hk", snat=False, comment="pods"))
    assert reader.all() == store.all() != ()
    store.leave(POD)
    assert reader.all() == store.all()


def test_what_is_barred_is_shown_as_withdrawn_and_no_record_changes(store: IntentStore) -> None:
    store.put(Intent(SERVICE, "hk"))
    store.put(Intent(POD, "hk"))
    store.bar({POD: Bar("overlaps-vswitch", "a vSwitch is there")})
    reader = IntentReader(store.path)
    assert {each.network: each.phase for each in reader.all()} == {SERVICE: Phase.PRESENT, POD: Phase.WITHDRAWN}
    assert {each.phase for each in store.all()} == {Phase.PRESENT}
    store.bar({})
    assert reader.all() == store.all()


def test_it_never_writes(store: IntentStore) -> None:
    store.put(Intent(POD, "hk"))
    place = store.path.parent
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in place.iterdir()}
    for _ in range(3):
        IntentReader(store.path).all()
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in place.iterdir()} == before


def test_a_database_that_is_not_there_is_no_empty_list_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        IntentReader(tmp_path / "nexthop.db").all()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
def test_a_file_that_is_no_database_of_ours_is_no_empty_list(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "nexthop.db").write_bytes(content)
    with pytest.raises(StoreUnavailable):
        IntentReader(tmp_path / "nexthop.db").all()


def test_another_schema_is_left_to_nexthopd(store: IntentStore) -> None:
    store.put(Intent(POD, "hk"))
    store.close()
    with closing(sqlite3.connect(store.path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreUnavailable, match="99"):
        IntentReader(store.path).all()


def test_a_dead_writers_journal_is_played_back_by_nexthopd_alone(store: IntentStore, tmp_path: Path) -> None:
    store.put(Intent(POD, "hk"))
    before = store.all()
    dead = tmp_path / "dead"
    dead.mkdir()
    with closing(sqlite3.connect(store.path, isolation_level=None)) as db:
        db.execute("PRAGMA cache_size = 1")
        db.execute("PRAGMA cache_spill = 1")
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE intent SET comment = 'half'")
        db.executemany(
            "INSERT INTO history (at, who, what, cidr, detail) VALUES (1, 'x', ?, '', '')", [("y" * 4000,)] * 50
        )
        for name in ("nexthop.db", "nexthop.db-journal"):  # as a power cut would leave them
            shutil.copy(tmp_path / name, dead / name)
        db.execute("ROLLBACK")
    reader = IntentReader(dead / "nexthop.db")
    with pytest.raises(StoreUnavailable):
        reader.all()
    with closing(IntentStore(dead / "nexthop.db")) as store:
        assert store.all() == before
        assert reader.all() == before == tuple(replace(each) for each in before)
