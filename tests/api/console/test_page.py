"""The page before a played appliance: every state that it has to show, at both widths, in both themes."""

from __future__ import annotations

import copy
import re
import threading
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.api.console import scenes
from tests.api.console.conftest import SIZES, THEMES, Look
from tests.api.console.played import Played

STATES = {"all-well": scenes.healthy, "first-day": scenes.empty, "trouble": scenes.broken}


@pytest.mark.parametrize("state", STATES)
def test_a_state_is_accessible_and_fits_both_widths_in_both_themes(state: str, played: Played, look: Look) -> None:
    played.scene = STATES[state]()
    screen = look(played.url)
    screen.sign_in()
    for size in SIZES:
        screen.resize(size)
        width = re.compile(r"^3\d\d$" if size == "phone" else r"^1\d\d\d$")
        expect(screen.page.locator("svg.topology")).to_have_attribute("width", width)
        for theme in THEMES:
            screen.wear(theme)
            screen.accessible()
            screen.fits()
            if (theme, size) in (("dark", "wide"), ("light", "phone")):
                screen.picture(f"{state}-{theme}-{size}")


def test_while_the_page_waits_for_the_first_answer_it_says_so(played: Played, look: Look) -> None:
    gate = threading.Event()
    whole = played.scene["status"]

    def slow() -> Any:
        gate.wait(20)
        return whole

    played.scene["status"] = slow
    screen = look(played.url)
    screen.page.goto(f"{played.url}/")
    screen.page.get_by_label("Token", exact=True).fill("nht_write")
    screen.page.get_by_role("button", name="Sign in").click()
    expect(screen.page.get_by_role("heading", level=1)).to_have_text("Looking…")
    gate.set()
    expect(screen.page.get_by_role("heading", level=1)).to_contain_text("2 of 2 CIDRs ready")


def test_a_daemon_that_is_gone_leaves_its_last_words_on_the_screen(played: Played, look: Look) -> None:
    screen = look(played.url, expected=("ERR_CONNECTION", "ERR_INCOMPLETE"))
    screen.sign_in()
    page, port = screen.page, played.port
    played.stop()
    lost = page.locator("#unreachable")
    expect(lost).to_contain_text("The daemon has not answered since")
    expect(lost).to_contain_text("What is shown is from then")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Last heard: OK")
    expect(screen.cidr(scenes.PODS)).to_be_visible()
    screen.accessible()
    screen.picture("not-reachable-dark-wide")
    played.again(port)
    expect(lost).to_be_hidden()
    expect(page.locator("#liveness")).to_have_text("live")


def test_an_event_appears_at_once_and_the_status_is_asked_again(played: Played, look: Look) -> None:
    screen = look(played.url)
    screen.sign_in()
    page = screen.page
    expect(page.locator("#events-live")).to_have_text("live")
    played.scene["status"] = scenes.broken()["status"]
    played.event("repaired", scenes.PODS, "the route was missing, and is back", who="forward")
    expect(page.locator("#events-list li").first).to_contain_text("the route was missing, and is back")
    expect(page.locator("#events-list li")).to_have_count(6)
    expect(page.get_by_role("heading", level=1)).to_contain_text("Degraded: link sg is down")


def test_a_stream_that_breaks_goes_on_after_its_last_event(played: Played, look: Look) -> None:
    screen = look(played.url)
    screen.sign_in()
    page = screen.page
    expect(page.locator("#events-live")).to_have_text("live")
    played.cut.set()
    expect(page.locator("#events-live")).to_have_text("not live")
    played.event("added", "10.97.0.0/16")
    played.cut.clear()
    expect(page.locator("#events-list li")).to_have_count(6)
    expect(page.locator("#events-list li").first).to_contain_text("10.97.0.0/16")
    assert played.streams >= 2


def test_every_layer_that_is_red_says_why_and_what_to_do(played: Played, look: Look) -> None:
    played.scene = scenes.broken()
    screen = look(played.url)
    screen.sign_in()
    services = screen.cidr(scenes.SERVICES)
    expect(services.locator('[data-layer="cloud"]')).to_have_attribute("data-state", "error")
    expect(services.locator('[data-layer="kernel"]')).to_have_attribute("data-state", "ok")
    expect(services.locator(".reason")).to_contain_text("made by somebody else, and not touched")
    expect(services.locator(".step")).to_contain_text("nexthop cidr adopt 10.96.0.0/16")
    expect(screen.cidr(scenes.PODS).locator(".step")).to_contain_text("see whether the probe target lives")
    expect(screen.page.locator('[data-link="sg"] .step')).to_contain_text("gtund client add")


def test_figures_are_told_in_the_units_of_networks(played: Played, look: Look) -> None:
    screen = look(played.url)
    screen.page.goto(f"{played.url}/console/")
    told = screen.page.evaluate(
        """async () => { const f = await import("/console/format.js");
            return [f.rate(0), f.rate(999.6), f.rate(34_200_000), f.rate(9_999_999), f.rate(2.5e12), f.rate(null),
                f.size(5_120_000), f.milliseconds(0.42), f.milliseconds(23.94), f.milliseconds(null),
                f.percent(0), f.percent(0.0123), f.percent(1), f.span(59), f.span(7_260), f.span(190_000)]; }"""
    )
    assert told == [
        *("0 bit/s", "1.00 kbit/s", "34.2 Mbit/s", "10.0 Mbit/s", "2500 Gbit/s", "\u2013"),
        *("5.12 MB", "0.42 ms", "23.9 ms", "\u2013"),
        *("0 %", "1.2 %", "100 %", "59 s", "2 h 1 min", "2 d 4 h"),
    ]


def test_data_is_text_and_never_markup(played: Played, look: Look) -> None:
    whole = copy.deepcopy(played.scene)
    whole["status"]["cidrs"][0]["comment"] = "<img src=x onerror=document.title='taken'>"
    whole["events"][0]["detail"] = "<script>document.title='taken'</script>"
    played.scene = whole
    screen = look(played.url)
    screen.sign_in()
    expect(screen.page.get_by_text("<img src=x onerror")).to_be_visible()
    expect(screen.page.get_by_text("<script>document.title")).to_be_visible()
    assert screen.page.title() == "Nexthop"


def test_the_keyboard_reaches_everything_and_its_place_is_seen(played: Played, look: Look) -> None:
    screen = look(played.url)
    screen.sign_in()
    page = screen.page
    page.locator(".skip").focus()
    reached, hidden = [], []
    for _ in range(40):
        name, outline = page.evaluate(
            """() => { const one = document.activeElement;
                return [one.getAttribute("aria-label") || one.textContent.trim() || one.id,
                        getComputedStyle(one).outlineStyle]; }"""
        )
        reached.append(name)
        if outline == "none" and len(reached) > 1:  # a focus that a script sets is not shown
            hidden.append(name)
        if name == "Join a link":
            break
        page.keyboard.press("Tab")
    assert reached[0] == "Skip to the content"
    for name in (
        "CIDRs",
        "Sign out",
        "add-cidr",
        "Add",
        f"Remove {scenes.SERVICES}",
        "System entries",
        "Remove link hk",
    ):
        assert name in reached, reached
    assert not hidden


def test_the_theme_is_the_systems_until_somebody_chooses(played: Played, look: Look) -> None:
    screen = look(played.url, theme="dark")
    screen.sign_in()
    page = screen.page
    shade = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(shade) == THEMES["dark"]
    page.get_by_role("button", name="Theme: automatic").click()
    expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    assert page.evaluate(shade) == THEMES["light"]
    page.reload()
    assert page.evaluate(shade) == THEMES["light"]


def test_a_disk_that_fails_is_told_in_the_first_line(played: Played, look: Look) -> None:
    played.scene["status"] = None
    screen = look(played.url, expected=("status of 503",))
    screen.sign_in()
    expect(screen.page.get_by_role("heading", level=1)).to_contain_text(
        "Broken: the state is not available", ignore_case=True
    )


def test_many_links_and_cidrs_are_drawn_without_end(played: Played, look: Look) -> None:
    whole = played.scene["status"]
    whole["links"] = [scenes.link(f"l{number}") for number in range(3)]
    whole["cidrs"] = [scenes.cidr(f"10.{number}.0.0/16", via=f"l{number % 2}") for number in range(40)]
    screen = look(played.url)
    screen.sign_in()
    expect(screen.page.locator("#topology .pill")).to_have_count(8)
    expect(screen.page.locator("#topology").get_by_text("and 17 more")).to_have_count(2)
    expect(screen.page.locator("#cidrs-list > li")).to_have_count(40)
    screen.resize("phone")
    screen.fits()
