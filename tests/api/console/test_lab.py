"""The console before the real daemon: a lab, its TLS listener, a token, and what an operator does."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, expect

from tests.api.console.conftest import Look, Screen, launched, wanted_pictures
from tests.lab import ground, topology
from tests.lab.lab import Lab

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it builds network namespaces"),
]

POD = topology.PODS["pod1"]
WHOLE_VPC = "172.18.0.0/16"
LAYERS = ("intent", "kernel", "cloud", "path")


@dataclass
class Place:
    lab: Lab
    url: str
    token: str


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """A joined lab without CIDRs, its console's address, and a token that may change things."""
    try:
        with Lab.open() as lab:
            lab.start_all()
            lab.join()
            lab.start_visitor()
            yield Place(lab, lab.open_console(), lab.token("browser", "write"))
    finally:
        ground.release_own()


@pytest.fixture(scope="module")
def browser(place: Place) -> Iterator[Browser]:
    """A browser that starts after the lab is built, and ends before it is taken down: both want the event loop."""
    with launched() as browser:
        yield browser


def opened(place: Place, look: Look, size: str) -> Screen:
    # What the browser itself notes of a refusal that the test asks for, and of a daemon that it kills.
    screen = look(place.url, size=size, expected=("status of 422",))
    screen.sign_in(place.token)
    screen.page.evaluate("window.notReloaded = true")
    return screen


def add_in(screen: Screen) -> None:
    page = screen.page
    form = page.locator("#add")
    form.get_by_text("Options").click()
    form.get_by_label("Probe").fill(f"tcp:{POD}:80")
    form.get_by_role("textbox", name="Add a CIDR").fill(topology.POD_CIDR)
    expect(page.locator("#preview")).to_have_attribute("data-answer", "plan")
    expect(page.locator("#preview")).to_contain_text("vtb-system")
    form.get_by_role("button", name="Add").click()
    for layer in LAYERS:
        hop = screen.cidr(topology.POD_CIDR).locator(f'[data-layer="{layer}"]')
        expect(hop).to_have_attribute("data-state", "ok", timeout=20_000)


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_an_operator_adds_sees_all_layers_green_and_removes(size: str, place: Place, look: Look) -> None:
    screen = opened(place, look, size)
    page = screen.page
    add_in(screen)
    expect(page.get_by_role("heading", level=1)).to_contain_text("OK: 1 of 1 CIDRs ready")
    expect(page.locator("#events-list")).to_contain_text(topology.POD_CIDR)
    entry = page.locator(f'tr[data-cidr="{topology.POD_CIDR}"]').first
    expect(entry).to_have_attribute("data-owner", "ours", timeout=20_000)
    expect(page.locator("#chart-throughput .value").first).to_have_text(re.compile("[1-9].*[kM]bit/s"), timeout=20_000)
    assert place.lab["host1"].run("curl", "-sS", "-m", "5", f"http://{POD}/").stdout
    screen.accessible()
    screen.fits()
    if wanted_pictures():
        enough = "samples for a chart with a shape"
        place.lab.wait(enough, lambda: len(place.lab.api("GET", "/v1/traffic")["links"]["hk"]["at"]) > 70, limit=200)
        page.mouse.click(5, 5)  # no field in focus
    screen.picture(f"lab-dark-{size}")

    page.get_by_role("textbox", name="Add a CIDR").fill(WHOLE_VPC)
    expect(page.locator("#preview")).to_contain_text("the VPC itself")
    expect(page.locator("#preview .step").first).to_contain_text("Name only the far network")
    page.get_by_role("textbox", name="Add a CIDR").fill("")

    page.get_by_role("button", name=f"Remove {topology.POD_CIDR}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".plan")).to_contain_text("our entry is removed")
    dialog.get_by_role("button", name="Remove").click()
    expect(screen.cidr(topology.POD_CIDR)).to_have_count(0, timeout=20_000)
    assert not place.lab.api("GET", "/v1/cidrs")["cidrs"]
    assert page.evaluate("window.notReloaded")


@pytest.mark.parametrize("size", ["wide", "phone"])
def test_a_link_goes_down_and_comes_back_before_ones_eyes(size: str, place: Place, look: Look) -> None:
    lab = place.lab
    lab.api("POST", "/v1/cidrs?wait=20", {"cidr": topology.POD_CIDR, "probe": f"tcp:{POD}:80"})
    try:
        screen = opened(place, look, size)
        page = screen.page
        link, title = page.locator('[data-link="hk"]'), page.get_by_role("heading", level=1)
        expect(link).to_have_attribute("data-state", "up")
        expect(title).to_contain_text("OK", timeout=20_000)
        lab.kill("appliance", "gtun@hk", hold=True)
        try:
            expect(link).to_have_attribute("data-state", "down", timeout=20_000)
            expect(link.locator(".step")).not_to_be_empty()
            expect(title).to_contain_text(re.compile("(Broken|Degraded): link hk"))
            expect(page.locator("svg.topology .edge.error").first).to_be_visible()
            screen.accessible()
            screen.picture(f"link-down-dark-{size}")
        finally:
            lab.let_go("appliance", "gtun@hk")
        expect(link).to_have_attribute("data-state", "up", timeout=30_000)
        expect(title).to_contain_text("OK", timeout=30_000)
        assert page.evaluate("window.notReloaded")
    finally:
        lab.api("DELETE", f"/v1/cidrs/{topology.POD_CIDR}")
        lab.wait("the CIDR to be gone", lambda: not lab.api("GET", "/v1/cidrs")["cidrs"])


def test_a_token_that_may_only_look_changes_nothing(place: Place, look: Look) -> None:
    screen = look(place.url)
    screen.sign_in(place.lab.token("looker", "read"))
    expect(screen.page.get_by_text("This token may only look.")).to_be_visible()
    expect(screen.page.get_by_role("textbox", name="Add a CIDR")).to_be_disabled()
    place.lab.api("DELETE", "/v1/tokens/looker")
    expect(screen.page.get_by_label("Token", exact=True)).to_be_visible(timeout=20_000)
