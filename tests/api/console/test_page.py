"""The page before a played appliance: every state that it has to show, at both widths, in both themes."""

from __future__ import annotations

import copy
import re
import threading
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.api.console import scenes
from tests.api.console.conftest import Look
from tests.api.console.played import Played

STATES = {"all-well": scenes.healthy, "first-day": scenes.empty, "trouble": scenes.broken}


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("state", STATES)
def test_a_state_is_accessible_and_fits_both_widths(state: str, theme: str, played: Played, look: Look) -> None:
    played.scene = STATES[state]()
    screen = look(played.url, theme=theme)
    screen.sign_in()
    for size in ("wide", "phone"):
        screen.resize(size)
        width = re.compile(r"^3\d\d$" if size == "phone" else r"^1\d\d\d$")
        expect(screen.page.locator("svg.topology")).to_have_attribute("width", width)
        screen.accessible()
        screen.fits()
        if (theme, size) in (("dark", "wide"), ("light", "phone")):
            screen.picture(f"{state}-{theme}-{size}")


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


def test_the_plan_is_shown_before_anything_is_done(played: Played, look: Look) -> None:
    screen = look(played.url)
    screen.sign_in()
    page = screen.page
    page.get_by_role("textbox", name="Add a CIDR").fill("10.97.0.0/16")
    expect(page.locator("#preview")).to_have_attribute("data-answer", "plan")
    expect(page.locator("#preview")).to_contain_text(scenes.TABLE)
    expect(page.locator("#preview li")).to_have_count(2)
    screen.accessible()
    screen.picture("preview-dark-wide", whole=False)


def test_a_refusal_comes_with_the_guards_reason_and_the_next_step(played: Played, look: Look) -> None:
    screen = look(played.url, expected=("status of 422",))
    screen.sign_in()
    page = screen.page
    page.get_by_role("textbox", name="Add a CIDR").fill("172.18.0.0/16")
    preview = page.locator("#preview")
    expect(preview).to_contain_text("172.18.0.0/16 contains the vSwitch vsw-hosts")
    expect(preview).to_contain_text("Choose a CIDR that does not overlap it")
    screen.accessible()


def test_what_somebody_types_outlives_a_refresh_and_only_the_last_wish_is_shown(played: Played, look: Look) -> None:
    screen = look(played.url)
    screen.sign_in()
    page = screen.page
    field = page.get_by_role("textbox", name="Add a CIDR")
    field.press_sequentially("10.97.0.0/16", delay=15)
    played.event("repaired", scenes.PODS)
    expect(page.locator("#events-list li")).to_have_count(6)
    expect(field).to_have_value("10.97.0.0/16")
    expect(field).to_be_focused()
    expect(page.locator("#preview")).to_have_attribute("data-answer", "plan")
    assert played.bodies[-1]["cidr"] == "10.97.0.0/16"


def test_only_options_that_were_touched_are_sent(played: Played, look: Look) -> None:
    screen = look(played.url)
    screen.sign_in()
    page = screen.page
    form = page.locator("#add")
    form.get_by_text("Options").click()
    form.get_by_label("Masquerade (SNAT)").uncheck()
    form.get_by_label("While the link is down").select_option("withdraw")
    form.get_by_label("After seconds without link").fill("90")
    form.get_by_role("textbox", name="Add a CIDR").fill("10.97.0.0/16")
    screen.accessible()
    form.get_by_role("button", name="Add").click()
    expect(form.get_by_role("textbox", name="Add a CIDR")).to_have_value("")
    wish = {"cidr": "10.97.0.0/16", "via": "hk", "snat": False, "when_down": "withdraw", "hold_down": 90}
    assert played.bodies[-1] == wish
    assert re.fullmatch("[0-9a-f]{32}", played.headers[-1]["idempotency-key"])


def test_a_change_names_the_version_that_was_shown_and_tells_of_a_rival(played: Played, look: Look) -> None:
    screen = look(played.url, expected=("status of 412",))
    screen.sign_in()
    page = screen.page
    reason = {
        "code": "etag-mismatch",
        "text": "somebody changed it meanwhile",
        "next_step": "look at it, and try again",
    }
    played.refusal = (412, {"code": "etag-mismatch", "title": "It was changed", "reasons": [reason]})
    page.get_by_role("button", name=f"Change {scenes.PODS}").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Comment").fill("pods, new cluster")
    screen.accessible()
    screen.picture("change-dark-wide", whole=False)
    dialog.get_by_role("button", name="Change").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Somebody changed it meanwhile")
    assert played.bodies[-1] == {"comment": "pods, new cluster"}
    assert played.headers[-1]["if-match"] == '"7"'


def test_a_removal_is_asked_once_more_and_escape_means_no(played: Played, look: Look) -> None:
    screen = look(played.url)
    screen.sign_in()
    page = screen.page
    button = page.get_by_role("button", name=f"Remove {scenes.PODS}")
    button.click()
    dialog = page.get_by_role("dialog", name=f"Remove {scenes.PODS}?")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    screen.accessible()
    screen.picture("remove-dark-wide", whole=False)
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(button).to_be_focused()
    assert not [asked for asked in played.asked if asked.startswith("DELETE")]
    button.click()
    dialog.get_by_role("button", name="Remove").click()
    expect(dialog).to_be_hidden()
    assert f"DELETE /v1/cidrs/{scenes.PODS}" in played.asked


def test_a_conflict_in_the_route_table_can_be_adopted(played: Played, look: Look) -> None:
    played.scene = scenes.broken()
    screen = look(played.url)
    screen.sign_in()
    page = screen.page
    page.get_by_role("button", name=f"Adopt {scenes.SERVICES}").click()
    expect(page.get_by_role("dialog")).to_contain_text("eni-wz9other")
    page.get_by_role("dialog").get_by_role("button", name="Adopt").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert f"POST /v1/cidrs/{scenes.SERVICES}/adopt" in played.asked


def test_a_join_token_goes_in_and_is_not_kept(played: Played, look: Look) -> None:
    played.scene = scenes.empty()
    screen = look(played.url)
    screen.sign_in()
    page = screen.page
    page.get_by_text("Join a link", exact=True).click()
    page.get_by_label("Name").fill("hk")
    page.get_by_label("Join token").fill("gtun1.secret")
    screen.accessible()
    page.get_by_role("button", name="Join").click()
    expect(page.get_by_label("Join token")).to_be_hidden()
    assert played.bodies[-1] == {"name": "hk", "token": "gtun1.secret"}
    assert page.get_by_label("Join token", exact=True).input_value() == ""


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
    assert page.evaluate(shade) == "rgb(13, 17, 22)"
    page.get_by_role("button", name="Theme: automatic").click()
    expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    assert page.evaluate(shade) == "rgb(244, 246, 248)"
    page.reload()
    assert page.evaluate(shade) == "rgb(244, 246, 248)"


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
