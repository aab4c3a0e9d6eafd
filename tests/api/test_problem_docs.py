"""docs/problems.md has a section for each code that a problem can have, and for no other."""

from __future__ import annotations

import ast
import re

from api import problem
from appliance import entries

from .conftest import ROOT

_MAKERS = {"Problem", "_refused", "_refusal", "_stranger"}


def in_source() -> set[str]:
    """Return the codes that the API's sources give a problem: the second argument of whatever makes one."""
    found = {each[0] for each in problem._HTTP.values()} | {"http"}
    found |= {code for _, code, _ in entries._PROBLEMS} | {entries._UNAVAILABLE[0]}
    for path in (ROOT / "api").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in _MAKERS and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
                found.add(str(node.args[1].value))
    return found | {"no-cloud"}  # api.cloud: its reason's code


def test_every_code_has_its_section_and_no_section_is_left_over() -> None:
    text = (ROOT / "docs" / "problems.md").read_text()
    sections = re.findall(r"^### (\S+)$", text, re.MULTILINE)
    assert len(sections) == len(set(sections))
    assert sections == sorted(sections)
    assert set(sections) == in_source()


def test_every_section_says_what_to_do() -> None:
    text = (ROOT / "docs" / "problems.md").read_text()
    for section in text.split("\n### ")[1:]:
        status, _, rest = section.partition("\n\n")[2].partition(". ")
        assert re.fullmatch(r"`\d{3}`(, `\d{3}`)*", status), section[:60]
        assert len(rest.split()) > 8, section[:60]
