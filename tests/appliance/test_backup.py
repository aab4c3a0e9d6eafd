from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from appliance import backup
from appliance.backup import BadBackup, Saved
from appliance.intent import IntentStore, StoreReadable, StoreUnavailable
from appliance.intentreader import IntentReader
from appliance.model import Intent, Phase
from appliance.options import OFF, WhenDown, parse_target
from appliance.records import MIGRATIONS, TokenRecord
from appliance.tokens import Scope, Tokens
from tests.appliance.fakes import POD, SERVICE, until

FULL = Intent(
    *(POD, "hk", False, "pods", Phase.PRESENT, 5.0),
    *(OFF, parse_target("tcp:10.244.1.20:80"), WhenDown.WITHDRAW, 12.5),
)
TOKENS = (TokenRecord("ci", b"\1" * 32, "write", 3.0, 9.0, None), TokenRecord("me", b"\2" * 32, "read", 4.0, None, 5.0))
SAVED = Saved(7.0, (FULL, Intent(SERVICE, "sg", phase=Phase.LEAVING)), frozenset({ip_network("10.9.0.0/16")}), TOKENS)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[IntentStore]:
    with contextlib.closing(IntentStore(tmp_path / "nexthop.db", clock=lambda: 1000.0)) as made:
        yield made


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    backup.save(tmp_path / "nexthop.db", SAVED)
    assert backup.load(tmp_path / "nexthop.db") == SAVED


@pytest.mark.parametrize("damage", [lambda text: text[:-9], lambda text: text.replace("hk", "kh"), lambda text: ""])
def test_a_damaged_backup_is_passed_over_for_the_one_before(tmp_path: Path, damage: object) -> None:
    database = tmp_path / "nexthop.db"
    backup.save(database, SAVED)
    backup.save(database, Saved(8.0, (), frozenset()))
    last = backup.path_of(database)
    last.write_text(damage(last.read_text()))  # type: ignore[operator]
    assert backup.load(database).at in {7.0, 8.0}
    last.write_text("nonsense")
    assert backup.load(database) == SAVED


def test_a_backup_of_before_tokens_were_in_it_is_good_still(tmp_path: Path) -> None:
    content = json.loads(backup.encode(SAVED).partition("\n")[2])
    del content["tokens"]
    text = json.dumps(content)
    assert backup.decode(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n") == replace(SAVED, tokens=())


@pytest.mark.parametrize("spoil", [{"digest": "no hex"}, {"scope": "all"}, {"created_at": "soon"}, {"name": ...}])
def test_a_token_that_cannot_be_understood_spoils_the_backup(spoil: dict[str, object]) -> None:
    content = json.loads(backup.encode(SAVED).partition("\n")[2])
    for name, value in spoil.items():
        content["tokens"][0].pop(name) if value is ... else content["tokens"][0].update({name: value})
    text = json.dumps(content)
    with pytest.raises(BadBackup, match="cannot be understood"):
        backup.decode(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n")


def test_without_a_backup_the_reason_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadBackup, match=r"nexthop.db.backup"):
        backup.load(tmp_path / "nexthop.db")


def test_every_option_survives_the_database(store: IntentStore) -> None:
    store.put(FULL)
    store.close()
    assert store.all() == (FULL,)


def test_a_database_of_version_1_is_brought_up_to_date_and_keeps_what_it_holds(store: IntentStore) -> None:
    with contextlib.closing(sqlite3.connect(store._path)) as old:
        old.executescript(MIGRATIONS[0])
        old.execute("INSERT INTO intent VALUES ('10.244.0.0/16', 'hk', 1, 'pods', 'leaving', 5.0)")
        old.execute("INSERT INTO released VALUES ('10.9.0.0/16', 6.0)")
        old.execute("PRAGMA user_version = 1")
        old.commit()
    assert store.all() == (Intent(POD, "hk", comment="pods", phase=Phase.LEAVING, created_at=5.0),)
    assert store.released() == {ip_network("10.9.0.0/16")}


def test_a_database_of_the_version_before_revisions_keeps_its_records_which_can_be_dropped(store: IntentStore) -> None:
    with contextlib.closing(sqlite3.connect(store._path)) as old:
        for script in MIGRATIONS[:3]:
            old.executescript(script)
        for cidr in (POD, SERVICE):
            values = (str(cidr), "hk", 0, "pods", "withdrawn", 5.0, "1400", "", "keep", 30)
            old.execute("INSERT INTO intent VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        old.execute("INSERT INTO history VALUES (7, 5.0, 'attract', 'withdrawn', '10.244.0.0/16', '')")
        old.execute("PRAGMA user_version = 3")
        old.commit()
    untouched, before = store.all()
    assert store.drop(SERVICE, untouched.revision) is True
    assert before == Intent(POD, "hk", snat=False, comment="pods", phase=Phase.WITHDRAWN, created_at=5.0, mss=1400)
    assert IntentReader(store.path).all()[0].revision == before.revision == 0
    store.put(Intent(POD, "hk"))
    store.leave(POD)
    store.withdrawn(POD)
    assert store.drop(POD, before.revision) is False  # it was seen in an earlier life
    assert store.drop(POD, store.all()[0].revision) is True


def test_a_restored_record_is_none_that_was_heard_of_before(store: IntentStore) -> None:
    store.put(Intent(POD, "hk"))
    store.close()
    store._path.write_bytes(b"torn")
    store.restore(Saved(7.0, (Intent(POD, "hk", phase=Phase.WITHDRAWN),), frozenset()))
    (restored,) = store.all()
    assert restored.revision == store.last_row() == 1000  # the time of day, which no count of changes has reached
    assert store.drop(POD, 3) is False


def test_a_damaged_database_is_moved_aside_and_the_backup_takes_its_place(store: IntentStore, tmp_path: Path) -> None:
    store.put(FULL)
    store.close()
    store._path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    calls: list[None] = []
    store.on_change(lambda: calls.append(None))
    with pytest.raises(StoreUnavailable):
        store.all()
    aside = store.restore(SAVED)
    assert aside is not None
    assert aside.read_bytes().endswith(b"\xff")
    assert set(store.all()) == set(SAVED.intents)
    assert store.released() == SAVED.released
    assert store.saved().tokens == TOKENS
    assert store.history(1)[0].what == "restored"
    assert calls == [None]


def test_a_database_that_can_be_read_is_never_replaced(store: IntentStore) -> None:
    store.put(FULL)
    with pytest.raises(StoreReadable):
        store.restore(SAVED)
    assert store.all() == (FULL,)


@pytest.mark.parametrize("left", [None, b""])
def test_a_database_that_vanished_is_not_taken_for_an_empty_one(store: IntentStore, left: bytes | None) -> None:
    store.put(FULL)
    backup.save(store._path, SAVED)
    store.close()
    store._path.unlink()
    if left is not None:
        store._path.write_bytes(left)
    with pytest.raises(StoreUnavailable, match="nexthop restore"):
        store.all()
    store.restore(backup.load(store._path))
    assert set(store.all()) == set(SAVED.intents)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), StoreUnavailable("locked")])
def test_a_backup_that_failed_is_tried_again_without_another_change(
    store: IntentStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: Exception
) -> None:
    tries: list[Saved] = []
    save = backup.save

    def fails_thrice(database: Path, saved: Saved) -> None:
        tries.append(saved)
        if len(tries) <= 3:
            raise failure
        save(database, saved)

    async def scenario() -> None:
        keeping = backup.keep(store, store._path, StoreUnavailable, settle=0.001, again=0.001)
        task = asyncio.get_running_loop().create_task(keeping)
        await until(lambda: len(tries) > 3 and backup.path_of(store._path).exists())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    store.put(FULL)
    monkeypatch.setattr(backup, "save", fails_thrice)
    asyncio.run(scenario())
    assert backup.load(store._path).intents == (FULL,)
    assert caplog.text.count("no backup could be written") == 1  # once, however often it is tried


def test_each_change_is_backed_up_a_moment_later(store: IntentStore) -> None:
    async def scenario() -> None:
        task = asyncio.get_running_loop().create_task(backup.keep(store, store._path, StoreUnavailable, settle=0.01))
        store.put(FULL)

        def saved() -> tuple[Intent, ...]:
            with contextlib.suppress(BadBackup):
                return backup.load(store._path).intents
            return ()

        await until(lambda: saved() == (FULL,))
        store.leave(POD)
        await until(lambda: saved() and saved()[0].phase is Phase.LEAVING)
        tokens = Tokens(store)
        _, text = tokens.add("ci", Scope.WRITE)
        await until(lambda: [each.name for each in backup.load(store._path).tokens] == ["ci"])
        assert text not in backup.path_of(store._path).read_text()
        tokens.rm("ci")
        await until(lambda: not backup.load(store._path).tokens)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
