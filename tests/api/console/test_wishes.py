"""What somebody asks of the page: shown before it is done, refused with a reason, and sent as it was meant."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.api.console import scenes
from tests.api.console.conftest import Look
from tests.api.console.played import Played


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
