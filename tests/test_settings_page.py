"""docs/settings.md has every key that the programs read, with its default, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from appliance import config
from appliance.tunnel.config import LinkConfig, ServerConfig, TunnelConfig
from appliance.tunnel.messages import MOST_CONNECTIONS

PAGE = (Path(__file__).parents[1] / "docs" / "settings.md").read_text()
APPLIANCE, FAR_END, LINK = "/etc/nexthop/nexthop.toml", "/etc/nexthop/gtund.toml", "/var/lib/nexthop/links/NAME.toml"

# Of each section, what its reader builds from it.
FORMS: Mapping[tuple[str, str], Any] = {
    **{(APPLIANCE, item.name): item.default_factory for item in fields(config.Config)},
    (FAR_END, "server"): ServerConfig,
    (FAR_END, "tunnel"): TunnelConfig,
    (LINK, "link"): LinkConfig,
}


def on_the_page() -> Iterator[tuple[tuple[str, str, str], str]]:
    """Yield file, section and key of each row, and its default as it is written."""
    file = section = ""
    for line in PAGE.splitlines():
        if found := re.fullmatch(r"## `(\S+)`", line):
            file = found[1]
        elif found := re.fullmatch(r"### \[(\w+)\]", line):
            section = found[1]
        elif found := re.fullmatch(r"\| `(\w+)` \| (.*?) \| .+ \|", line):
            yield (file, section, found[1]), found[2].strip("`")


def written(value: object) -> str:
    """Return a default as a TOML file would have it."""
    match value:
        case _ if value is MISSING:
            return "required"
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case Enum():
            return f'"{value.value}"'
        case str() | Path() | IPv4Address() | IPv4Network():
            return f'"{value}"'
        case ():
            return "[]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_key_is_on_the_page_with_its_default_and_no_other_is() -> None:
    rows = list(on_the_page())
    assert len(rows) == len(dict(rows))
    assert dict(rows) == {
        (file, section, item.name): written(item.default)
        for (file, section), form in FORMS.items()
        for item in fields(form)
    }


def test_the_appliances_file_takes_what_is_on_the_page_and_nothing_else() -> None:
    taken = {(APPLIANCE, section, key) for section, keys in config._SECTIONS.items() for key in keys}
    assert taken == {row for row, _ in on_the_page() if row[0] == APPLIANCE}


def test_the_bounds_that_the_page_names_are_the_codes() -> None:
    assert f"1 to {MOST_CONNECTIONS} |" in PAGE
