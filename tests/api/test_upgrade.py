"""An upgrade ends in one of two ways: the new release runs and does as well, or the old one runs as before.

systemd is a script that notes what it is asked; a release's daemon is as well as its wheel says in `HEALTH`.
"""

from __future__ import annotations

import ast
import contextlib
import re
import sqlite3
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import upgrade as upgrading
from api.client import NotRunning
from api.upgrade import Health, Place, Refused, RolledBack, upgrade
from appliance.release import Releases, Wheel, read_wheel
from tests.appliance.test_release import wheel

WELL = {"links": ["hk"], "cidrs": ["10.244.0.0/16"]}
# What a release's own preflight does in these wheels: brings the copy to schema SCHEMA, or refuses.
PREFLIGHT = """
import sqlite3, sys
if %(refuse)r: sys.exit("config.toml: unknown key")
if sys.argv[1] == "gtund": sys.exit(len(sys.argv) != 3)
db = sqlite3.connect(sys.argv[3]); db.execute("PRAGMA user_version = %(schema)d"); db.commit()
"""


class Unzipped(Releases):
    """Releases without a virtual environment each, which `tests.appliance.test_release` is about."""

    def install(self, wheel: Wheel) -> Path:
        release = self.home / "releases" / wheel.release
        with zipfile.ZipFile(wheel.path) as archive:
            archive.extractall(release)
        python = release / "bin" / "python"
        python.parent.mkdir()
        python.write_text(f'#!/bin/sh\nPYTHONPATH={release} exec {sys.executable} -S "$@"\n')
        python.chmod(0o755)
        return release


class Daemon:
    """Answers as the release that systemd was last told to start says; `restarts` counts processes."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def get(self, target: str) -> object:
        running = (self.place.etc.parent / "running").read_text().strip()
        _, _, said = Path(running, "appliance", "__init__.py").read_text().partition("HEALTH = ")
        if (health := ast.literal_eval(said)) is None:
            raise NotRunning({"detail": "nobody listens"})
        return {
            "links": [{"name": name, "state": "up"} for name in health["links"]],
            "cidrs": [{"cidr": cidr, "layers": {"kernel": {"state": "ok"}}} for cidr in health["cidrs"]],
        }


def release(directory, version, health=WELL, *, schema=1, refuse=False, needs=""):
    """Write a wheel whose daemon does as `health` says."""
    path = wheel(directory / version, version, f"HEALTH = {health!r}\n")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("appliance/preflight.py", PREFLIGHT % {"schema": schema, "refuse": refuse})
    return path


SYSTEMCTL = """#!/bin/sh
echo "$@" >>{home}/called
case "$1" in
restart) case "$(cat {home}/unstartable 2>/dev/null)" in *"$(readlink {home}/opt/current)"*) exit 1 ;; esac
    case "$*" in *nexthopd.service*)
        realpath {home}/opt/current >{home}/running
        schema=$(cat {home}/migrates 2>/dev/null) &&
            {python} -c "import sqlite3 as s; s.connect('{home}/nexthop.db').execute('PRAGMA user_version=$schema')" ;;
    esac
    expr $(cat {home}/pid) + 1 >{home}/pid.new; mv {home}/pid.new {home}/pid ;;
show) if [ -e {home}/unsteady ]; then date +%N; else cat {home}/pid; fi ;;
list-units) for name in hk us; do echo "nexthop-gtun@$name.service loaded active running"; done ;;
esac
exit 0
"""


@pytest.fixture
def place(tmp_path) -> Place:
    """Return a machine on which release 1.0 is at work, and well."""
    home = tmp_path / "opt"
    releases = Unzipped(home)
    home.mkdir()
    releases.switch(releases.install(read_wheel(release(tmp_path, "1.0"))))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "role").write_text("appliance\n")
    (tmp_path / "running").write_text(str(releases.current))
    (tmp_path / "pid").write_text("1\n")
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(SYSTEMCTL.format(home=tmp_path, python=sys.executable))
    systemctl.chmod(0o755)
    database = tmp_path / "nexthop.db"
    with contextlib.closing(sqlite3.connect(database)) as db, db:
        db.executescript(
            "CREATE TABLE intents (cidr); INSERT INTO intents VALUES ('10.244.0.0/16'); PRAGMA user_version = 1;"
        )
    return Place(releases, tmp_path / "etc", database, (str(systemctl),), patience=1.0, steady=0.1)


def called(place: Place) -> list[str]:
    lines = (place.etc.parent / "called").read_text().splitlines()
    return [line for line in lines if not line.startswith(("show", "list-units"))]


def runs(place: Place) -> str:
    return place.releases.current.name.partition("-")[0]


def go(place: Place, path) -> list[str]:
    return list(upgrade(path, Daemon(place), place))


def test_a_release_that_does_as_well_stays_and_tunnels_are_restarted_last_one_by_one(place, tmp_path) -> None:
    said = go(place, release(tmp_path, "2.0"))
    assert runs(place) == "2.0"
    assert called(place) == [
        "restart nexthop-forward.service",
        "restart nexthopd.service",
        "restart nexthop-gtun@hk.service",
        "restart nexthop-gtun@us.service",
    ]
    assert "is kept" in said[-1]
    assert sorted(each.name.partition("-")[0] for each in (place.releases.home / "releases").iterdir()) == [
        "1.0",
        "2.0",
    ]


@pytest.mark.parametrize(
    ("health", "complaint"),
    [
        (None, "nobody listens"),
        ({"links": [], "cidrs": ["10.244.0.0/16"]}, "link hk is not up"),
        ({"links": ["hk"], "cidrs": []}, "10.244.0.0/16 is not carried"),
    ],
)
def test_a_release_that_is_unwell_is_taken_back_before_any_tunnel_was_touched(
    place, tmp_path, health, complaint
) -> None:
    with pytest.raises(RolledBack, match=complaint):
        go(place, release(tmp_path, "2.0", health))
    assert runs(place) == "1.0"
    assert not [line for line in called(place) if "gtun" in line]
    assert called(place)[-1] == "restart nexthop-forward.service nexthopd.service"


def test_one_that_does_not_start_is_taken_back(place, tmp_path) -> None:
    (tmp_path / "unstartable").write_text("releases/2.0-")
    path = release(tmp_path, "2.0")
    (tmp_path / "unstartable").write_text(f"releases/{read_wheel(path).release}")
    with pytest.raises(RolledBack, match="does not start"):
        go(place, path)
    assert runs(place) == "1.0"


def test_one_whose_daemon_keeps_restarting_is_taken_back(place, tmp_path) -> None:
    (tmp_path / "unsteady").touch()
    with pytest.raises(RolledBack, match="keep restarting"):
        go(place, release(tmp_path, "2.0"))
    assert runs(place) == "1.0"


def test_the_database_goes_back_where_the_schema_had_changed_and_keeps_what_was_written_where_it_had_not(
    place, tmp_path
) -> None:
    (tmp_path / "migrates").write_text("2")
    with pytest.raises(RolledBack):
        go(place, release(tmp_path, "2.0", None, schema=2))
    assert "stop nexthop-forward.service nexthopd.service" in called(place)
    with contextlib.closing(sqlite3.connect(place.database)) as db, db:
        assert db.execute("SELECT cidr FROM intents").fetchall() == [("10.244.0.0/16",)]
        db.execute("INSERT INTO intents VALUES ('10.9.0.0/16')")
    (tmp_path / "called").unlink()
    (tmp_path / "migrates").unlink()
    with contextlib.closing(sqlite3.connect(place.database)) as db, db:
        db.execute("PRAGMA user_version = 1")
    with pytest.raises(RolledBack):
        go(place, release(tmp_path, "3.0", None))
    assert not [line for line in called(place) if line.startswith("stop")]
    with contextlib.closing(sqlite3.connect(place.database)) as db, db:
        assert len(db.execute("SELECT cidr FROM intents").fetchall()) == 2


def test_one_that_cannot_read_what_is_here_is_refused_and_nothing_is_touched(place, tmp_path) -> None:
    with pytest.raises(Refused, match="unknown key"):
        go(place, release(tmp_path, "2.0", refuse=True))
    assert runs(place) == "1.0"
    assert not (tmp_path / "called").exists()
    with contextlib.closing(sqlite3.connect(place.database)) as db, db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)


def test_what_is_unwell_before_need_not_be_well_afterwards(place, tmp_path, monkeypatch) -> None:
    ailing: dict[str, list[str]] = {"links": [], "cidrs": []}
    monkeypatch.setattr(Daemon, "get", lambda self, target: {"links": [], "cidrs": []})
    go(place, release(tmp_path, "2.0", ailing))
    assert runs(place) == "2.0"


def test_the_same_wheel_again_is_refused(place, tmp_path) -> None:
    with pytest.raises(Refused, match="runs already"):
        go(place, release(tmp_path, "1.0"))


def test_an_appliance_that_does_not_answer_is_not_upgraded(place, tmp_path) -> None:
    (tmp_path / "running").write_text(str(place.releases.install(read_wheel(release(tmp_path, "0.9", None)))))
    with pytest.raises(Refused, match="does not answer"):
        go(place, release(tmp_path, "2.0"))


def test_two_at_once_are_refused(place, tmp_path) -> None:
    first = upgrade(release(tmp_path, "2.0"), Daemon(place), place)
    next(first)
    with pytest.raises(Refused, match="another upgrade"):
        go(place, release(tmp_path, "3.0"))
    list(first)
    assert runs(place) == "2.0"


@pytest.mark.parametrize(
    "end", [KeyboardInterrupt("SIGTERM"), KeyError("links"), OSError(28, "No space left on device")]
)
def test_whatever_ends_a_trial_it_goes_back(place, tmp_path, monkeypatch, end) -> None:
    """By a signal, by an answer that nobody thought of, or by a full disk."""

    def ended(*_: object) -> None:
        raise end

    monkeypatch.setattr(upgrading, "_well", ended)
    with pytest.raises(RolledBack, match=re.escape(str(end))):
        go(place, release(tmp_path, "2.0"))
    assert runs(place) == "1.0"
    assert not place.trial.exists()


UNTRIED = Path(__file__).parents[2] / "images" / "files" / "libexec" / "nexthop-untried"


@pytest.mark.parametrize("migrated", [False, True])
def test_a_power_cut_on_trial_leaves_the_old_release_and_its_database(place, tmp_path, migrated) -> None:
    trial = upgrade(release(tmp_path, "2.0"), Daemon(place), place)
    while "nexthopd" not in next(trial):  # its daemons run: now the power goes
        pass
    assert runs(place) == "2.0"
    with contextlib.closing(sqlite3.connect(place.database)) as db, db:
        db.execute("INSERT INTO intents VALUES ('10.9.0.0/16')")
        if migrated:
            db.execute("PRAGMA user_version = 2")
    subprocess.run([str(UNTRIED), str(place.releases.home), str(place.database)], check=True)
    assert runs(place) == "1.0"
    assert not place.trial.exists()
    with contextlib.closing(sqlite3.connect(place.database)) as db, db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert len(db.execute("SELECT cidr FROM intents").fetchall()) == (1 if migrated else 2)
    with pytest.raises(RolledBack):
        trial.close()


@pytest.mark.parametrize("written", ["", "releases/0.9", "releases/0.9 1"])
def test_a_power_cut_while_the_trial_was_noted_leaves_what_runs(place, written) -> None:
    """The link moves only when the whole line is on disk."""
    place.trial.write_text(written)
    subprocess.run([str(UNTRIED), str(place.releases.home), str(place.database)], check=True)
    assert runs(place) == "1.0"
    assert not place.trial.exists()


def test_nothing_is_begun_while_a_release_is_on_trial_still(place, tmp_path) -> None:
    place.trial.write_text("releases/1.0 1\n")
    with pytest.raises(Refused, match="cut off"):
        go(place, release(tmp_path, "2.0"))


def test_a_far_end_restarts_gtund_alone(place, tmp_path) -> None:
    (place.etc / "role").write_text("gtund\n")
    go(replace(place, database=tmp_path / "none.db"), release(tmp_path, "2.0"))
    assert called(place) == ["restart gtund.service"]


def test_a_machine_without_a_role_is_told_what_to_do(place, tmp_path) -> None:
    (place.etc / "role").unlink()
    with pytest.raises(Refused, match="nexthop setup"):
        go(place, release(tmp_path, "2.0"))


_NAMES = st.frozensets(st.sampled_from("abcd"))


@given(_NAMES, _NAMES, _NAMES, _NAMES)
def test_nothing_lacks_exactly_where_all_that_was_well_is_well(links, cidrs, links_now, cidrs_now) -> None:
    lacks = Health(links_now, cidrs_now).lacks(Health(links, cidrs))
    assert (lacks == "") == (links <= links_now and cidrs <= cidrs_now)
