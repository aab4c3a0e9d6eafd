"""The door of the page: a token comes in, stays in its tab, and opens no more than it is good for."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.api.console import scenes
from tests.api.console.conftest import Look
from tests.api.console.played import Played


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_signing_in_is_accessible(theme: str, played: Played, look: Look) -> None:
    screen = look(played.url, theme=theme, size="phone" if theme == "light" else "wide")
    screen.page.goto(f"{played.url}/")
    screen.page.get_by_label("Token", exact=True).fill("nht_wrong")
    screen.page.keyboard.press("Enter")
    expect(screen.page.get_by_role("alert")).to_contain_text("This token is not good")
    screen.accessible()
    screen.fits()
    screen.picture(f"sign-in-{theme}", whole=False)


def test_a_token_stays_in_its_tab_and_is_forgotten_on_signing_out(played: Played, look: Look) -> None:
    screen = look(played.url)
    screen.sign_in()
    page = screen.page
    assert "nht_" not in page.url
    assert page.evaluate("localStorage.length + document.cookie.length") == 0
    page.reload()
    page.locator("#verdict:not([aria-busy])").wait_for()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token", exact=True)).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_token_that_is_taken_away_leads_back_to_the_door(played: Played, look: Look) -> None:
    screen = look(played.url)
    screen.sign_in()
    screen.page.evaluate("sessionStorage.setItem('nexthop-token', 'nht_gone')")
    expect(screen.page.get_by_label("Token", exact=True)).to_be_visible()


def test_a_token_that_may_only_look_is_told_so_and_offered_no_change(played: Played, look: Look) -> None:
    screen = look(played.url)
    screen.sign_in("nht_read")
    page = screen.page
    expect(page.get_by_text("This token may only look.")).to_be_visible()
    expect(page.get_by_role("textbox", name="Add a CIDR")).to_be_disabled()
    for name in (f"Change {scenes.PODS}", f"Remove {scenes.PODS}", "Remove link hk"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()
    screen.accessible()
    screen.picture("read-only-dark-wide")
