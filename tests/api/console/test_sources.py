"""What holds for the console's files as they lie there: no markup from data, nothing from elsewhere, nothing inline."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

HOME = Path(__file__).parents[3] / "api" / "console"
OURS = sorted(HOME.glob("*.js"))
MARKUP = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|\beval\(|new Function"
)
ELSEWHERE = re.compile(r"""(?:https?:)?//[a-z0-9-]+\.[a-z]""")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self._open = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open in ("script", "style") and data.strip():
            self.inside.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._open = ""


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_data_never_becomes_markup(path: Path) -> None:
    assert not MARKUP.search(path.read_text())


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_a_file_opens_with_its_rule_and_stays_short(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("/* ")
    assert len(text.splitlines()) < 300


@pytest.mark.parametrize("path", [*OURS, *HOME.glob("*.css"), HOME / "index.html"], ids=lambda path: path.name)
def test_nothing_comes_from_elsewhere(path: Path) -> None:
    assert not ELSEWHERE.findall(path.read_text().replace("http://www.w3.org/2000/svg", ""))


def test_the_page_has_nothing_inline() -> None:
    page = _Page()
    page.feed((HOME / "index.html").read_text())
    assert page.tags
    assert not page.inside
    for tag, attributes in page.tags:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag


def test_every_file_that_is_named_is_there() -> None:
    page = _Page()
    page.feed((HOME / "index.html").read_text())
    named = {attributes.get("src") or attributes.get("href") or "" for _, attributes in page.tags}
    imported = {name for path in OURS for name in re.findall(r'from "\./([^"]+)"', path.read_text())}
    files = {name.removeprefix("/console/") for name in named if name.startswith("/console/")} | imported
    assert files
    assert not [name for name in files if not (HOME / name).is_file()]


def test_what_others_wrote_comes_with_its_licence() -> None:
    vendor = HOME / "vendor"
    assert (
        "MIT License" in (vendor / "uPlot.LICENSE").read_text()
        or "Permission is hereby granted" in (vendor / "uPlot.LICENSE").read_text()
    )
    told = (vendor / "README.md").read_text()
    assert not [path.name for path in vendor.iterdir() if path.name != "README.md" and path.name not in told]
