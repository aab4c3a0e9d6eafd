"""A browser that notices: a page whose console says an error, or that asks another origin, fails its test."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.api.console.played import Played

CHROMIUM: Final = Path("/usr/bin/chromium")
PICTURES: Final = Path(__file__).parents[3] / "docs" / "pictures"
SIZES: Final = {"wide": (1440, 900), "phone": (390, 844)}
THEMES: Final = {"dark": "rgb(13, 17, 22)", "light": "rgb(244, 246, 248)"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a browser there is nothing to look with."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and not CHROMIUM.exists() and "test_sources" not in item.nodeid:
            item.add_marker(pytest.mark.skip(reason="needs chromium: apt install chromium, or ./run test"))


def wanted_pictures() -> bool:
    """Whether this run is to renew the pictures in docs/."""
    return bool(os.environ.get("NEXTHOP_PICTURES"))


@dataclass
class Screen:
    """A page, what it wrote to its console, and whom else it asked.

    `expected`: what the browser itself writes there of an answer that is not 2xx, where a test means one.
    """

    page: Page
    origin: str
    expected: tuple[str, ...] = ("status of 401",)
    problems: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)

    def sign_in(self, token: str = "nht_write") -> None:
        self.page.goto(f"{self.origin}/")
        self.page.get_by_label("Token", exact=True).fill(token)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.locator("#verdict:not([aria-busy])").wait_for()

    def resize(self, size: str) -> None:
        width, height = SIZES[size]
        self.page.set_viewport_size({"width": width, "height": height})

    def wear(self, theme: str) -> None:
        """Let the system change to this theme, and wait until the page has followed."""
        self.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        expect(self.page.locator("body")).to_have_css("background-color", THEMES[theme])

    def cidr(self, name: str) -> Any:
        return self.page.locator(f'[data-cidr="{name}"].row')

    def accessible(self) -> None:
        """Fail where axe finds what is serious or critical."""
        found = Axe().run(self.page, options={"resultTypes": ["violations"]}).response["violations"]
        told = [
            f"{each['id']} ({each['impact']}): {each['help']}: {[node['html'][:120] for node in each['nodes'][:3]]}"
            for each in found
            if each["impact"] in ("serious", "critical")
        ]
        assert not told, "\n".join(told)

    def fits(self) -> None:
        """Fail where a person would have to scroll sideways."""
        wide = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"the page is {wide} pixels too wide"

    def picture(self, name: str, *, whole: bool = True) -> None:
        """Keep a picture in docs/ where NEXTHOP_PICTURES says so; a plain test run leaves the tree as it is."""
        if wanted_pictures():
            PICTURES.mkdir(exist_ok=True)
            self.page.screenshot(path=PICTURES / f"{name}.png", full_page=whole)


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Start Debian's Chromium; as root it runs only without its sandbox, and sees nothing but our own pages."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


Look = Callable[..., Screen]


@pytest.fixture
def look(browser: Browser) -> Iterator[Look]:
    """Return what opens a page at an origin; at the end every page must have been quiet."""
    contexts: list[BrowserContext] = []
    screens: list[Screen] = []

    def open_(origin: str, *, size: str = "wide", theme: str = "dark", expected: tuple[str, ...] = ()) -> Screen:
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,  # type: ignore[arg-type]
            reduced_motion="reduce",
            ignore_https_errors=True,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        screen = Screen(page, origin, ("status of 401", *expected))

        def said(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning") and not any(text in message.text for text in screen.expected):
                screen.problems.append(message.text)

        def asked(request: Request) -> None:
            parts = urlsplit(request.url)
            if parts.scheme in ("http", "https") and f"{parts.scheme}://{parts.netloc}" != origin:
                screen.strangers.append(request.url)

        page.on("console", said)
        page.on("pageerror", lambda error: screen.problems.append(str(error)))
        page.on("request", asked)
        screens.append(screen)
        return screen

    yield open_
    for context in contexts:
        context.close()
    for screen in screens:
        assert not screen.problems
        assert not screen.strangers


@pytest.fixture
def played() -> Iterator[Played]:
    with Played() as made:
        yield made
