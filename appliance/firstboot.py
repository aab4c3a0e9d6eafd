"""firstboot.yaml: what a new machine is told about itself, once. Pure: text in, values out.

The operator hands it over as user-data, cloud-init writes it, and `api.firstboot` does what it says:

    role: appliance                       # or gtund, the far end
    links:
      hk: nexthop1_...                    # the join token that `gtund client add` printed
    cidrs:
      - 10.244.0.0/16                     # by the only link
      - {cidr: 10.96.0.0/16, via: hk, snat: false}
    cloud: {route_tables: [vtb-1]}        # any section of nexthop.toml; for gtund, of gtund.toml

It holds a secret (a token, good for one use), so neither its text nor what YAML quotes of it enters an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

import yaml

from appliance.config import ConfigError, parse
from appliance.tunnel import token as join_token
from appliance.tunnel.config import ConfigError as GtundConfigError
from appliance.tunnel.config import gtund_from


class Role(Enum):
    """What a machine made from the image can be."""

    APPLIANCE = "appliance"
    GTUND = "gtund"


class BadFirstBoot(ValueError):
    """The document cannot be used; the message names the key and says what to write."""


@dataclass(frozen=True, slots=True)
class FirstBoot:
    """A document in order. `links`: join token by name; `cidrs`: bodies of POST /v1/cidrs; `config`: TOML."""

    role: Role
    config: str
    links: Mapping[str, str] = field(default_factory=dict, repr=False)
    cidrs: tuple[Mapping[str, Any], ...] = ()


_GTUND_SECTIONS: Final = ("server", "tunnel")


def read(text: str) -> FirstBoot:
    """Return what the document says; raise `BadFirstBoot`."""
    try:
        found = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise BadFirstBoot(f"line {line} is not YAML: {error.problem}") from None
    except yaml.YAMLError:
        raise BadFirstBoot("this is not YAML: it holds characters that no text has") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise BadFirstBoot("write keys and values, beginning with `role: appliance` or `role: gtund`")
    return build(found)


def build(document: Mapping[str, Any]) -> FirstBoot:
    """Return what a document that was read already says; raise `BadFirstBoot`."""
    sections = dict(document)
    role = _role(sections.pop("role", None))
    for name, section in sections.items():
        if name not in {"links", "cidrs"} and not isinstance(section, Mapping):
            raise BadFirstBoot(f"{name} is a section: write `{name}: {{key: value}}`")
    if role is Role.GTUND:
        return FirstBoot(role, _gtund(sections))
    links = _links(sections.pop("links", None) or {})
    cidrs = tuple(_cidr(each, links) for each in _list(sections.pop("cidrs", None)))
    config = toml(sections)
    try:
        parse(config, "firstboot.yaml")
    except ConfigError as error:
        raise BadFirstBoot(str(error).removeprefix("firstboot.yaml: ")) from None
    return FirstBoot(role, config, links, cidrs)


def toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Return sections as TOML; raise `BadFirstBoot` for a value that TOML has no word for."""
    lines = []
    for name, section in sections.items():
        lines += [
            f"[{name}]",
            *(f"{_text(key)} = {_value(value, f'{name}.{key}')}" for key, value in section.items()),
            "",
        ]
    return "\n".join(lines)


def _role(value: object) -> Role:
    try:
        return Role(value)
    except ValueError:
        raise BadFirstBoot("role is missing or unknown: write `role: appliance` or `role: gtund`") from None


def _gtund(sections: Mapping[str, Mapping[str, Any]]) -> str:
    for name in sections:
        if name not in _GTUND_SECTIONS:
            raise BadFirstBoot(f"{name} is not for gtund: write `server` and `tunnel`, as in gtund.toml")
    if not sections.get("server", {}).get("public"):
        raise BadFirstBoot("server.public is missing: write the HOST:PORT that appliances connect to")
    if not sections.get("tunnel", {}).get("serve"):
        raise BadFirstBoot("tunnel.serve is missing: write what lies behind gtund, such as [10.244.0.0/16]")
    text = toml(sections)
    try:
        gtund_from(text, Path("firstboot.yaml"))
    except GtundConfigError as error:
        raise BadFirstBoot(str(error).removeprefix("firstboot.yaml: ")) from None
    return text


def _links(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise BadFirstBoot("links: write `NAME: TOKEN`, one a line")
    for name, token in value.items():
        if not isinstance(name, str) or not join_token.NAME.fullmatch(name):
            raise BadFirstBoot(f"links: {name!r} will not do as a name: a-z, 0-9 and -, at most 11, a letter first")
        try:
            join_token.decode(token if isinstance(token, str) else "")
        except join_token.BadToken as error:
            raise BadFirstBoot(f"links.{name}: {error}: ask for a new one: `gtund client add NAME`") from None
    return dict(value)


def _list(value: object) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadFirstBoot("cidrs: write a list, one `- CIDR` a line")
    return value


def _cidr(value: object, links: Mapping[str, str]) -> Mapping[str, Any]:
    body = {"cidr": value} if isinstance(value, str) else value
    if not isinstance(body, Mapping) or not isinstance(body.get("cidr"), str):
        raise BadFirstBoot("cidrs: write each as CIDR, or as `{cidr: CIDR, via: LINK}`")
    try:
        ip_network(body["cidr"])
    except ValueError as error:
        raise BadFirstBoot(f"cidrs: {error}") from None
    via = body.get("via")
    if via is not None and via not in links:
        raise BadFirstBoot(f"cidrs: {body['cidr']} goes via {via!r}, which is not among the links")
    if via is None and len(links) > 1:
        raise BadFirstBoot(f"cidrs: there are several links: write `{{cidr: {body['cidr']}, via: LINK}}`")
    return dict(body)


def _text(value: str) -> str:
    # A JSON string is a TOML basic string, but for DEL, which json leaves as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: object, where: str) -> str:
    match value:
        case bool() | int() | float():
            return json.dumps(value)
        case str():
            return _text(value)
        case list():
            return f"[{', '.join(_value(item, where) for item in value)}]"
        case dict():
            return "{" + ", ".join(f"{_text(str(key))} = {_value(item, where)}" for key, item in value.items()) + "}"
    raise BadFirstBoot(f"{where}: write a text, a number, true or false, or a list of them")
