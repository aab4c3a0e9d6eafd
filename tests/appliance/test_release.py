"""Releases stand side by side, and none touches another's files."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from appliance.release import Releases, Unsuitable, read_wheel

PIP = (sys.executable, "-m", "pip")


def wheel(directory: Path, version: str, code: str = "", *, needs: str = "", name: str = "nexthop") -> Path:
    """Write a wheel as small as one can be, with the package `appliance` in it."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    package = "appliance" if name == "nexthop" else name
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (
        f"Requires-Dist: {needs}\n" if needs else ""
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{package}/__init__.py", f"VERSION = {version!r}\n{code}")
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        files = (f"{package}/__init__.py", f"{info}/METADATA", f"{info}/WHEEL", f"{info}/RECORD")
        archive.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in files))
    return path


@pytest.fixture(scope="module")
def releases(tmp_path_factory) -> Releases:
    """Return a home where version 1 runs, which needs the library `friend`. Who uses it leaves it so."""
    tmp_path = tmp_path_factory.mktemp("releases")
    home = tmp_path / "home"
    wheel(home / "wheelhouse", "1.0", name="friend")
    made = Releases(home, sys.executable, PIP)
    first = home / "releases" / "nothing"
    (first / "lib" / "python3" / "site-packages").mkdir(parents=True)
    made.switch(first)
    release = made.install(read_wheel(wheel(tmp_path / "1", "1.0", needs="friend")))
    made.switch(release)
    return made


def ask(release: Path, code: str) -> str:
    argv = [str(release / "bin" / "python"), "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=True, env={}, cwd="/").stdout.strip()


def test_a_new_release_stands_beside_the_old_one_until_the_link_moves(releases, tmp_path) -> None:
    old = releases.current
    new = releases.install(read_wheel(wheel(tmp_path / "2", "2.0", needs="friend")))
    assert releases.current == old
    assert [ask(each, "import appliance; print(appliance.VERSION)") for each in (old, new)] == ["1.0", "2.0"]
    # It shares what did not change.
    files = [next(each.glob("lib/python3*/site-packages/friend/__init__.py")) for each in (old, new)]
    assert files[0].samefile(files[1])
    releases.switch(new)
    assert releases.current == new
    assert (releases.home / "current").readlink() == Path("releases", new.name)
    assert new.name.startswith("2.0-")
    releases.switch(old)
    releases.prune(old)
    assert sorted((releases.home / "releases").iterdir()) == [old]


def test_a_library_that_changed_is_the_new_releases_alone_and_half_an_installation_is_no_matter(
    releases, tmp_path
) -> None:
    wheel(tmp_path / "3", "2.0", name="friend")
    found = read_wheel(wheel(tmp_path / "3", "3.0", needs="friend>=2"))
    half = releases.home / "releases" / found.release
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").write_text("half a")
    new = releases.install(found)
    assert [ask(each, "import friend; print(friend.VERSION)") for each in (releases.current, new)] == ["1.0", "2.0"]


def test_a_library_that_is_nowhere_is_told_and_leaves_nothing(releases, tmp_path) -> None:
    before = sorted((releases.home / "releases").iterdir())
    with pytest.raises(Unsuitable, match="stranger"):
        releases.install(read_wheel(wheel(tmp_path / "2", "2.0", needs="stranger")))
    assert sorted((releases.home / "releases").iterdir()) == before


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("friend-1.0-py3-none-any.whl", b"", "not named like a wheel of nexthop"),
        ("nexthop-1.0-py3-none-any.whl", b"PK no zip", "damaged"),
        ("nexthop-1.0-py3-none-any.whl", None, "cannot be read"),
    ],
)
def test_what_is_no_wheel_of_ours_is_refused(tmp_path, name, content, complaint) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Unsuitable, match=complaint):
        read_wheel(tmp_path / name)


def test_a_wheel_with_a_flipped_bit_is_refused(tmp_path) -> None:
    path = wheel(tmp_path, "1.0", code="WORD = 'abcdefgh'\n")
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"abcdefgi"))
    with pytest.raises(Unsuitable, match="damaged"):
        read_wheel(path)


def test_a_machine_that_was_not_made_by_us_is_told_so(tmp_path) -> None:
    with pytest.raises(Unsuitable, match=r"provision\.sh"):
        _ = Releases(tmp_path).current
